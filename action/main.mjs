// The step: the job's identity token in, the credentials of its grants out. What is given is put into the post step's
// state before anything else is done with it, so that it is given back whatever happens later.

import { randomBytes } from "node:crypto";

import { SHORTEST, shown } from "./encoding.mjs";
import { fitVariables, named, privateFolder, writeFiles } from "./expose.mjs";
import { Unreachable, patiently, send } from "./http.mjs";
import { NoToken, claims, identityToken } from "./identity.mjs";
import { Misuse, read } from "./inputs.mjs";
import { problem, refusal, tokenless } from "./refusal.mjs";
import { annotate, mask, output, say, state, summary, variable } from "./runner.mjs";

/** An idempotency key has 32 characters of these; the API takes 16 to 64. */
const KEY_BYTES = 16;

/** Time is what ends it in practice: after two retries of a call that was answered, the broker refuses (P3). */
const TRIES = 5;

/** The answer is not a permit; what there is to say is said already. */
class Refused extends Error {}

/** A cancelled job: the runner gives it some seconds. What is on its way is awaited, since it may bring a handle. */
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    if (!stop.signal.aborted) {
      say("cancelled: what the broker has been asked for is awaited, so that it can be given back");
    }
    stop.abort();
  });
}

async function run(environment) {
  const inputs = read(environment);
  const until = Date.now() + inputs.timeoutMs;
  const token = await identityToken({ environment, audience: inputs.audience, until, stop: stop.signal });
  mask(token);
  const exchanged = await exchange(inputs, token, until, environment);
  if (inputs.expose === "none") {
    return tellDryRun(inputs, exchanged);
  }
  keep(inputs, exchanged);
  if (stop.signal.aborted) {
    throw new Error("the job was cancelled; the post step gives back what was issued");
  }
  tell(exchanged);
  expose(inputs, exchanged.issuances, environment);
}

async function exchange(inputs, token, until, environment) {
  const headers = {
    authorization: `Bearer ${token}`,
    accept: "application/json",
    "content-type": "application/json",
    // One for all tries: a try whose answer was lost is not a second use of the token.
    "idempotency-key": randomBytes(KEY_BYTES).toString("hex"),
  };
  const request = { method: "POST", url: endpoint(inputs.url), headers, body: JSON.stringify(inputs.body), ca: inputs.ca };
  const once = (patience) => send(request, environment, patience);
  const codeOf = (answer) => problem(answer)?.code;
  const answer = await patiently(once, { until, tries: TRIES, stop: stop.signal, codeOf });
  if (answer.status === 200) {
    return permit(answer.text, inputs);
  }
  const decision = problem(answer)?.decision_id;
  if (typeof decision === "string") {
    output("decision_id", shown(decision, 64));
  }
  report(refusal({ answer, grants: inputs.grants, claims: claims(token), url: inputs.url, environment }));
  throw new Refused();
}

function endpoint(url) {
  return new URL(`${url.href.replace(/\/+$/, "")}/v1/exchange`);
}

/** Reads a permit; whatever in it is secret is masked before anything can show it. */
function permit(text, { url, expose }) {
  const notOurs = () => new Error(`${url.host} answered, but not as a broker does`);
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    // Without the parser's own words: they would quote what may be secret.
    throw notOurs();
  }
  const issuances = Array.isArray(body?.issuances) ? body.issuances : undefined;
  if (issuances === undefined || typeof body.decision_id !== "string") {
    throw notOurs();
  }
  if (expose !== "none") {
    issuances.forEach(maskSecrets);
    if (!issuances.every(isIssuance)) {
      throw notOurs();
    }
  }
  return { decision: body.decision_id, issuances };
}

function isIssuance(issuance) {
  const texts = [issuance?.id, issuance?.handle, issuance?.grant, issuance?.credential];
  const fields = issuance?.fields;
  const isWhole = texts.every((text) => typeof text === "string") && typeof fields === "object" && fields !== null;
  return isWhole && /^iss_[0-9a-z]+$/.test(issuance.id) && Object.values(fields).every((value) => typeof value === "string");
}

function maskSecrets(issuance) {
  const { handle, fields, secret_fields: secret } = issuance ?? {};
  [handle, ...(secret ?? []).map((name) => fields?.[name])].filter((value) => typeof value === "string").forEach(mask);
}

/** What the post step needs to give everything back. */
function keep({ url, ca }, { issuances }) {
  state("url", url.href);
  state("ca", ca ?? "");
  state("issuances", JSON.stringify(issuances.map(({ id, handle, expires_at: end }) => ({ id, handle, end: end ?? null }))));
}

function tell({ decision, issuances }) {
  output("decision_id", shown(decision, 64));
  output("issuance_ids", JSON.stringify(issuances.map(({ id }) => id)));
  const ends = issuances.map(({ expires_at: end }) => end).filter((end) => typeof end === "string");
  // RFC 3339 in UTC, always: the order of the texts is the order of the times.
  output("expires_at", shown(ends.sort()[0] ?? "", 64));
  for (const { id, grant, credential, expires_at: end, lifetime } of issuances) {
    say(`${shown(grant)}/${shown(credential)} ${id}, ${end ? `${shown(lifetime)}, ends ${shown(end)}` : "never ends by itself"}`);
  }
  say(`decision ${shown(decision, 64)}`);
  const short = issuances.flatMap(({ grant, credential, fields, secret_fields: secret }) =>
    (secret ?? [])
      .filter((name) => typeof fields[name] === "string" && [...fields[name].trim()].length < SHORTEST)
      .map((name) => `${grant}.${credential}.${name}`));
  if (short.length > 0) {
    annotate("warning", `too short to be masked in logs: ${shown(short.join(", "))}`);
  }
}

function tellDryRun({ grants }, { decision, issuances }) {
  output("decision_id", shown(decision, 64));
  output("issuance_ids", "[]");
  output("expires_at", "");
  for (const { grant, credential, ttl_seconds: ttl } of issuances) {
    say(`${shown(grant)}/${shown(credential)} would be given, ${ttl ? `for ${shown(ttl)} s` : "and never ends by itself"}`);
  }
  say(`decision ${shown(decision, 64)}`);
  annotate(
    "notice",
    `this job may have ${grants.join(", ")}, and was given nothing, since \`expose\` is \`none\`: say \`expose: env\` or ` +
      "`expose: file`, or let one command have it by `hallpass exec`",
  );
}

function expose({ variables, expose: how }, issuances, environment) {
  const wanted = named(variables, issuances);
  if (wanted.length === 0) {
    return;
  }
  const names = wanted.map((each) => each.variable);
  if (how === "env") {
    fitVariables(wanted);
    state("variables", JSON.stringify(names));
    wanted.forEach((each) => variable(each.variable, each.value));
    annotate(
      "warning",
      `${names.join(", ")} can be read by every later step of this job, other people's actions too; ` +
        "`hallpass exec` gives them to one command only",
    );
    return;
  }
  const folder = privateFolder(environment);
  state("folder", folder);
  state("variables", JSON.stringify(names));
  writeFiles(folder, wanted).forEach((each) => variable(each.variable, each.value));
  say(`${names.join(", ")} name files in ${folder}, until the job ends`);
}

function report({ line, page }) {
  annotate("error", line);
  summary(page);
}

try {
  await run(process.env);
} catch (fault) {
  process.exitCode = 1;
  if (fault instanceof NoToken) {
    report(tokenless(fault));
  } else if (fault instanceof Misuse || fault instanceof Unreachable) {
    annotate("error", fault.message);
  } else if (!(fault instanceof Refused)) {
    annotate("error", shown(fault.message));
  }
}

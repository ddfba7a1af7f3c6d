// The end of the job, however it ended: what was issued is given back by its handle, files are removed, variables are
// emptied. It never fails a job: what is not given back ends by itself, and a notice says what that is.

import { removeFolder } from "./expose.mjs";
import { asksForAnotherTry, patiently, secureUrl, send } from "./http.mjs";
import { shown } from "./encoding.mjs";
import { problem } from "./refusal.mjs";
import { annotate, mask, say, variable } from "./runner.mjs";

const TRIES = 3;
/** For everything; a job's end should not wait long for a broker that is away. */
const PATIENCE_MS = 30_000;
const ONE_TRY_MS = 10_000;
/** Clocks differ by this much at most: what ended so long ago need not be given back. */
const CLOCKS_MS = 60_000;

/** What each answer of DELETE means (contract: section 3). */
const GIVEN_BACK = {
  200: "is released; nobody can end it before its time",
  202: "is being revoked by the broker",
  204: "is revoked",
  404: "is over already",
};

/** Runs each part, whatever becomes of the others. */
async function run(environment) {
  const parts = [() => removeFiles(environment), () => emptyVariables(environment), () => giveBack(environment)];
  for (const part of parts) {
    try {
      await part();
    } catch (fault) {
      annotate("notice", `something is left for later: ${shown(fault.message)}`);
    }
  }
}

function removeFiles({ STATE_folder: folder }) {
  if (folder) {
    removeFolder(folder);
    say("the files are removed");
  }
}

function emptyVariables({ STATE_variables: names }) {
  // For the post steps of other actions, which come after this one.
  JSON.parse(names || "[]").forEach((name) => variable(name, ""));
}

async function giveBack({ STATE_url: url, STATE_ca: ca, STATE_issuances: kept, ...environment }) {
  const issuances = JSON.parse(kept || "[]");
  issuances.forEach(({ handle }) => mask(handle));
  const until = Date.now() + PATIENCE_MS;
  await Promise.all(issuances.map((issuance) => giveBackOne(issuance, { url, ca, until, environment })));
}

async function giveBackOne({ id, handle, end }, { url, ca, until, environment }) {
  if (end !== null && Date.parse(end) + CLOCKS_MS < Date.now()) {
    say(`${id} ended ${end}`);
    return;
  }
  const request = {
    method: "DELETE",
    url: new URL(`${secureUrl(url).href.replace(/\/+$/, "")}/v1/issuances/${encodeURIComponent(id)}`),
    headers: { authorization: `Bearer ${handle}`, accept: "application/json" },
    ca: ca || undefined,
  };
  const once = (patience) => send(request, environment, Math.min(patience, ONE_TRY_MS));
  let why;
  try {
    const answer = await patiently(once, { until, tries: TRIES, codeOf: (each) => problem(each)?.code });
    const done = GIVEN_BACK[answer.status];
    if (done !== undefined) {
      say(`${id} ${done}`);
      return;
    }
    why = `${answer.status} ${shown(problem(answer)?.code ?? "", 64)}`.trim();
    why = asksForAnotherTry(answer.status) ? `${why}, asked ${TRIES} times` : why;
  } catch (fault) {
    why = shown(fault.message);
  }
  const rest = end === null ? "it does not end by itself, so an operator should revoke it" : `it ends ${end}`;
  annotate("notice", `${id} could not be given back (${why}); ${rest}`);
}

await run(process.env);

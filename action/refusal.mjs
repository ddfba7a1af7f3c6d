// What a job is told when it gets nothing: what is wrong, what to do about it, and whom to ask with which id. Nothing of
// policy: the broker does not tell any.

import { markdown, shown } from "./encoding.mjs";
import { forkOf } from "./identity.mjs";

/** What to do about a code of the API, where its own words need an addition. */
const HINTS = {
  access_denied: "A broker says no more to a job; in the ledger the decision's id leads to the reason.",
  token_audience: "Let `url` be written exactly as the broker's own `public.url`, or set `audience` to what it expects.",
  token_issuer: "The broker does not trust this GitHub: an operator has to add its issuer to hallpass.yaml and policies/.",
  token_replayed: "This job's token was used by somebody else, or by a try whose answer was lost. Run the job again.",
  idempotency_mismatch: "This is a fault of this action; please report it.",
  rate_limited: "Too many requests, or five refusals of this job's token. Wait, then run the job again.",
  quota_exceeded: "The grant's limit is used up for now. Wait, or ask the grant's owners for a higher one.",
  ttl_out_of_range: "`ttl` is shorter than what this kind of credential can be made for.",
  input_invalid: "This grant holds a credential that is made from an input, such as a certificate request, which this " +
    "action does not send: leave it out by `credentials`, or use `hallpass exec --input`.",
  issuer_unavailable: "The broker cannot fetch GitHub's keys at the moment.",
  ledger_unavailable: "The broker cannot write its record at the moment, and gives nothing without.",
  backend_failed: "What mints the credential refused or failed; an operator finds the reason in the broker's ledger.",
  backend_timeout: "What mints the credential did not answer in time.",
  token_not_yet_valid: "The broker's clock and GitHub's differ: an operator has to look after the broker's.",
  token_expired: "The broker's clock and GitHub's differ: an operator has to look after the broker's.",
};

/** Claims by which rules are usually written, in the order in which a person reads them. */
const TELLING = [
  "repository", "repository_id", "repository_owner_id", "ref", "ref_protected", "event_name", "environment",
  "job_workflow_ref", "runner_environment",
];

/** Reads an answer's problem document (RFC 9457); nothing where it is none. */
export function problem(answer) {
  try {
    const found = JSON.parse(answer.text);
    return typeof found === "object" && found !== null && typeof found.code === "string" ? found : undefined;
  } catch {
    return undefined;
  }
}

/** `{ line, page }`: an annotation, and Markdown for the job's summary. */
export function refusal({ answer, grants, claims, url, environment }) {
  const found = problem(answer);
  const names = grants.join(", ");
  if (found === undefined) {
    const line = `${url.host} answered ${answer.status} where a broker should. Is \`url\` the broker's, and what stands before it well?`;
    return { line, page: page("Hallpass: no answer of a broker", [markdown(line)], []) };
  }
  const code = shown(found.code, 64);
  const id = shown(found.decision_id ?? found.request_id ?? "", 64);
  const idName = found.decision_id === undefined ? "request" : "decision";
  const sentences = [`${code} (${answer.status}) for ${names}.`, sentence(found.detail ?? found.title ?? "")];
  const failed = Array.isArray(found.failed_claims) ? found.failed_claims.map((claim) => shown(claim, 64)) : [];
  if (failed.length > 0) {
    sentences.push(`Not as the grant wants them: ${failed.join(", ")}.`);
  }
  sentences.push(HINTS[code] ?? "");
  const fork = answer.status === 403 ? forkOf(environment) : undefined;
  if (fork !== undefined) {
    sentences.push(`This run is of a pull request from ${fork}: grants seldom permit those.`);
  }
  sentences.push(id === "" ? "" : `${idName} ${id}`);
  const said = sentences.filter((each) => each !== "");
  const rows = [[idName, id], ["grants", names]];
  rows.push(...TELLING.filter((name) => name in claims).map((name) => [name, text(claims[name])]));
  const body = said.slice(1, id === "" ? undefined : -1).map((each) => markdown(each, 1000));
  return { line: said.join(" "), page: page(`Hallpass refused: ${code}`, body, rows) };
}

/** `{ line, page }` for a job without a token. */
export function tokenless(fault) {
  const line = fault.remedy === undefined ? `${fault.message}.` : `${fault.message}:\n\n${fault.remedy}`;
  const paste = fault.remedy === undefined ? [] : [`\`\`\`yaml\n${fault.remedy}\n\`\`\``];
  return { line, page: page("Hallpass: no identity token", [`${markdown(fault.message, 1000)}.`, ...paste], []) };
}

function text(claim) {
  return typeof claim === "string" ? claim : JSON.stringify(claim);
}

function sentence(written) {
  const plain = shown(written, 500);
  return plain === "" || /[.!?…]$/.test(plain) ? plain : `${plain}.`;
}

function page(title, paragraphs, rows) {
  const table = rows.filter(([, cell]) => cell !== "").map(([name, cell]) => `| ${markdown(name)} | ${markdown(cell)} |`);
  const whole = table.length > 0 ? [["| | |", "|---|---|", ...table].join("\n")] : [];
  return [`### ${markdown(title)}`, ...paragraphs, ...whole].join("\n\n");
}

// The job's identity token: asked of GitHub for the broker's audience, and why there is none.
//
// Source: docs.github.com, "OpenID Connect reference"; actions/toolkit, packages/core/src/oidc-utils.ts.

import fs from "node:fs";

import { shown } from "./encoding.mjs";
import { Unreachable, patiently, secureUrl, send } from "./http.mjs";

/** There is no token. `message` says why, `remedy` (YAML to paste) how to get one, where that is possible. */
export class NoToken extends Error {
  constructor(message, remedy) {
    super(message);
    this.remedy = remedy;
  }
}

/** The whole block: whoever adds one line of it takes all other permissions away. */
export const PERMISSIONS = [
  "permissions:",
  "  id-token: write   # lets this job ask GitHub for the token that says who it is",
  "  contents: read    # naming one permission takes all others away, and actions/checkout needs this one",
].join("\n");

const TRIES = 5;

/** Asks for a token. Throws [NoToken]. */
export async function identityToken({ environment, audience, until, stop }) {
  const address = environment.ACTIONS_ID_TOKEN_REQUEST_URL;
  const right = environment.ACTIONS_ID_TOKEN_REQUEST_TOKEN;
  if (!address || !right) {
    throw whyNone(environment);
  }
  let url;
  try {
    url = secureUrl(address);
  } catch (fault) {
    throw new NoToken(`ACTIONS_ID_TOKEN_REQUEST_URL: ${fault.message}`);
  }
  url.searchParams.set("audience", audience);
  const headers = { accept: "application/json; api-version=2.0", authorization: `Bearer ${right}` };
  const once = (patience) => send({ method: "GET", url, headers }, environment, patience);
  let answer;
  try {
    answer = await patiently(once, { until, tries: TRIES, stop, codeOf: () => undefined });
  } catch (fault) {
    if (fault instanceof Unreachable) {
      throw new NoToken(`GitHub's token service could not be reached: ${fault.message}`);
    }
    throw fault;
  }
  if (answer.status !== 200) {
    throw new NoToken(`GitHub's token service answered ${answer.status}: ${shown(answer.text, 200)}`);
  }
  const token = value(answer.text);
  if (token === undefined) {
    throw new NoToken("GitHub's token service answered without a token");
  }
  return token;
}

function value(text) {
  try {
    const token = JSON.parse(text)?.value;
    return typeof token === "string" && /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) ? token : undefined;
  } catch {
    return undefined;
  }
}

/** What a token says of the job, unverified: for showing the job its own claims, and for nothing else. */
export function claims(token) {
  try {
    const payload = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString("utf8"));
    return typeof payload === "object" && payload !== null ? payload : {};
  } catch {
    return {};
  }
}

/** Why GitHub offers this job no token: a fork, a missing permission, or another place altogether. */
function whyNone(environment) {
  if (environment.GITHUB_ACTIONS !== "true") {
    return new NoToken("this is no job of GitHub Actions, so that GitHub gives it no identity token");
  }
  const fork = forkOf(environment);
  if (fork !== undefined) {
    return new NoToken(
      `this run is of a pull request from ${fork}, and GitHub gives such runs no identity token, whatever their ` +
        "permissions say. What needs credentials belongs into a job that runs after the merge (`on: push`); " +
        "`pull_request_target` is no way out, since it would run a stranger's code with the rights of this repository",
    );
  }
  return new NoToken(
    "GitHub gives this job no identity token, because the permission `id-token: write` is missing. Give the whole block " +
      "to the job, or to the workflow; a reusable workflow gets no more than the job that calls it, so there, too",
    PERMISSIONS,
  );
}

/** The fork that a pull request comes from, by the event's payload; nothing where it comes from none. */
export function forkOf(environment) {
  let event;
  try {
    event = JSON.parse(fs.readFileSync(environment.GITHUB_EVENT_PATH, "utf8"));
  } catch {
    return undefined;
  }
  const head = event?.pull_request?.head;
  const base = event?.pull_request?.base;
  if (head === undefined || head === null || base === undefined || base === null) {
    return undefined;
  }
  if (head.repo === null) {
    return "a fork that is gone";
  }
  const isSame = head.repo?.id !== undefined && head.repo.id === base.repo?.id;
  return isSame ? undefined : `the fork ${shown(head.repo?.full_name ?? "of somebody", 200)}`;
}

// What the step says under `with:`. Whatever can be found wrong without the broker is found here, before a token is
// fetched or used up. Names and bounds are those of the API and of `hallpass exec`.

import fs from "node:fs";

import { secureUrl } from "./http.mjs";

/** The step is written wrongly; its message says how to mend it. */
export class Misuse extends Error {}

const MOST_GRANTS = 8;
const MOST_REASON_CHARACTERS = 256;
const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 };

/** What later steps get. */
export const EXPOSE = ["none", "env", "file"];

/**
 * What the runner keeps to itself: it drops such an entry of GITHUB_ENV, or would be misled by it.
 * Source: docs.github.com, "Default environment variables" and "Setting an environment variable".
 */
const RESERVED = /^(GITHUB_|RUNNER_|ACTIONS_|INPUT_|STATE_)|^(CI|NODE_OPTIONS)$/i;

/** Reads the inputs. Throws [Misuse]. */
export function read(environment) {
  const input = (name) => (environment[`INPUT_${name.toUpperCase()}`] ?? "").trim();
  const url = address(input("url"));
  const grants = grantNames(input("grant"));
  const expose = input("expose") || "none";
  if (!EXPOSE.includes(expose)) {
    throw new Misuse(`\`expose: ${expose}\` is none of ${EXPOSE.join(", ")}`);
  }
  const variables = mappings(input("env"), grants);
  if (expose === "none" && variables.length > 0) {
    throw new Misuse("`env` names variables, and `expose: none` makes none; say `expose: env` or `expose: file`");
  }
  const reason = input("reason");
  if ([...reason].length > MOST_REASON_CHARACTERS) {
    throw new Misuse(`\`reason\` has more than ${MOST_REASON_CHARACTERS} characters`);
  }
  return {
    url,
    audience: input("audience") || input("url"),
    ca: authorities(input("ca"), input("ca-file")),
    timeoutMs: timeout(input("timeout") || "60s"),
    expose,
    variables,
    body: body({ grants, credentials: credentials(input("credentials"), grants), ttl: input("ttl"), reason, expose }),
    grants: [...grants],
  };
}

function address(text) {
  if (text === "") {
    throw new Misuse("`url` is missing: the broker's address, such as https://hallpass.example.com");
  }
  let url;
  try {
    url = secureUrl(text);
  } catch (fault) {
    throw new Misuse(`\`url\`: ${fault.message}`);
  }
  if (url.search !== "") {
    throw new Misuse(`\`url\`: \`${text}\` holds more than scheme, host, port and path`);
  }
  return url;
}

function list(text) {
  return text.split(/[\s,]+/).filter((word) => word !== "");
}

function grantNames(text) {
  const names = list(text);
  if (names.length === 0) {
    throw new Misuse("`grant` is missing: the name of what this job asks for");
  }
  if (names.length > MOST_GRANTS) {
    throw new Misuse(`${names.length} grants, and one exchange has ${MOST_GRANTS} at most`);
  }
  const wrong = names.find((name) => !isName(name));
  if (wrong !== undefined) {
    throw new Misuse(`\`${wrong}\` is no grant's name: those have a-z, 0-9 and hyphens only`);
  }
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) {
    throw new Misuse(`the grant \`${twice}\` is named twice`);
  }
  return names;
}

function isName(text) {
  return /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

/** The credentials asked for by grant; a grant that is not there is asked for whole. */
function credentials(text, grants) {
  const asked = new Map();
  for (const written of list(text)) {
    const at = written.indexOf(".");
    const of = at < 0 ? grants : [written.slice(0, at)];
    const name = written.slice(at + 1);
    if (!isName(name)) {
      throw new Misuse(`\`credentials\`: \`${written}\` is neither NAME nor GRANT.NAME`);
    }
    for (const grant of of) {
      if (!grants.includes(grant)) {
        throw new Misuse(`\`credentials\`: \`${written}\` is about a grant that is not asked for`);
      }
      const names = asked.get(grant) ?? [];
      if (names.includes(name)) {
        throw new Misuse(`\`credentials\`: \`${name}\` is named twice for \`${grant}\``);
      }
      asked.set(grant, [...names, name]);
    }
  }
  return asked;
}

function mappings(text, grants) {
  const lines = text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "");
  const found = lines.map((line) => {
    // A field's name may hold dots, as those of key-value secrets do; the other two never do.
    const parts = /^([A-Za-z_][A-Za-z0-9_]*)=([^.\s]+)\.([^.\s]+)\.(.+)$/.exec(line);
    if (parts === null) {
      throw new Misuse(`\`env\`: \`${line}\` is not NAME=grant.credential.field`);
    }
    const [, variable, grant, credential, field] = parts;
    if (RESERVED.test(variable)) {
      throw new Misuse(`\`env\`: ${variable} is the runner's own; choose another name`);
    }
    if (!grants.includes(grant)) {
      throw new Misuse(`\`env\`: ${variable} names the grant \`${grant}\`, which is not asked for`);
    }
    return { variable, grant, credential, field };
  });
  const twice = found.find(({ variable }, at) => found.findIndex((each) => each.variable === variable) !== at);
  if (twice !== undefined) {
    throw new Misuse(`\`env\`: ${twice.variable} is given twice`);
  }
  return found;
}

/** A duration such as 90s, 10m, 1h or 30d, in seconds; nothing where it is none. */
function seconds(text) {
  const parts = /^([1-9][0-9]{0,6})([smhd])$/.exec(text);
  return parts === null ? undefined : Number(parts[1]) * SECONDS[parts[2]];
}

function timeout(text) {
  const found = seconds(text);
  if (found === undefined || found < 5 || found > 300) {
    throw new Misuse(`\`timeout: ${text}\` is no duration from 5s to 5m`);
  }
  return found * 1000;
}

function authorities(pem, file) {
  if (pem !== "" && file !== "") {
    throw new Misuse("`ca` and `ca-file` are both given; one is enough");
  }
  if (pem === "" && file === "") {
    return undefined;
  }
  let text = pem;
  if (file !== "") {
    try {
      text = fs.readFileSync(file, "utf8");
    } catch (fault) {
      throw new Misuse(`\`ca-file\`: ${file}: ${fault.code}`);
    }
  }
  if (!/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.test(text)) {
    throw new Misuse("`ca` holds no certificate in PEM, as -----BEGIN CERTIFICATE-----");
  }
  return text;
}

function body({ grants, credentials: asked, ttl, reason, expose }) {
  const ttlSeconds = ttl === "" ? undefined : seconds(ttl);
  if (ttl !== "" && ttlSeconds === undefined) {
    throw new Misuse(`\`ttl: ${ttl}\` is no duration such as 90s, 10m or 1h`);
  }
  const whole = {
    grants: grants.map((name) => {
      const grant = { name };
      if (asked.has(name)) {
        grant.credentials = asked.get(name);
      }
      if (ttlSeconds !== undefined) {
        grant.ttl_seconds = ttlSeconds;
      }
      return grant;
    }),
  };
  if (reason !== "") {
    whole.reason = reason;
  }
  if (expose === "none") {
    whole.dry_run = true;
  }
  return whole;
}

// Which variables later steps get, and the files that hold what no variable should. The names are those of
// `hallpass exec`: AWS access keys under the names that AWS's tools read, any other field as CREDENTIAL_FIELD.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { Misuse } from "./inputs.mjs";

/** Fields of an access key as backends call them, and the variable that AWS's tools read. */
const AWS = [
  ["AWS_ACCESS_KEY_ID", ["access_key_id", "access_key"]],
  ["AWS_SECRET_ACCESS_KEY", ["secret_access_key", "secret_key"]],
  ["AWS_SESSION_TOKEN", ["session_token", "security_token"]],
];

/** Names that a program obeys as code or as where to find code; whoever writes a secret's fields must not choose them. */
const OBEYED = /^(LD_|DYLD_|GIT_|PYTHON|NODE_|PERL5|RUBY|BASH_|GITHUB_|RUNNER_|ACTIONS_|INPUT_|STATE_)/;

/** How folders of this action are called; a random end follows. */
const PREFIX = "hallpass-action-";

/** linux/magic.h: a file system that is memory only. */
const TMPFS_MAGIC = 0x01021994;

/** The variables and their values, `[{ variable, value }]`. Throws [Misuse]. */
export function named(mappings, issuances) {
  const found = mappings.length > 0 ? mappings.map((mapping) => lookUp(mapping, issuances)) : issuances.flatMap(byDefault);
  const twice = found.find(({ variable }, at) => found.findIndex((each) => each.variable === variable) !== at);
  if (twice !== undefined) {
    throw new Misuse(`two credentials would both be ${twice.variable}; name them by \`env\``);
  }
  return found;
}

function lookUp({ variable, grant, credential, field }, issuances) {
  const issuance = issuances.find((each) => each.grant === grant && each.credential === credential);
  if (issuance === undefined) {
    throw new Misuse(`${variable}: \`${grant}\` gave no credential \`${credential}\``);
  }
  if (!Object.hasOwn(issuance.fields, field)) {
    const names = Object.keys(issuance.fields).join(", ");
    throw new Misuse(`${variable}: \`${grant}.${credential}\` has no field \`${field}\`, but ${names}`);
  }
  return { variable, value: issuance.fields[field] };
}

function byDefault({ credential, fields }) {
  const names = Object.keys(fields).sort();
  const key = AWS.map(([variable, aliases]) => [variable, aliases.find((alias) => names.includes(alias))]);
  const isKey = key[0][1] !== undefined && key[1][1] !== undefined;
  const own = isKey ? key.filter(([, name]) => name !== undefined) : [];
  const rest = names.filter((name) => !own.some(([, taken]) => taken === name));
  return [
    ...own.map(([variable, name]) => ({ variable, value: fields[name] })),
    ...rest.map((name) => ({ variable: usual(credential, name), value: fields[name] })),
  ];
}

function usual(credential, field) {
  const name = `${credential}_${field}`.toUpperCase().replace(/[^A-Z0-9]/g, "_");
  if (/^[0-9]/.test(name) || OBEYED.test(name)) {
    throw new Misuse(`${name} is no name to give unasked; name it by \`env\``);
  }
  return name;
}

/** Looks whether variables can hold the values. Throws [Misuse]. */
export function fitVariables(variables) {
  const wrong = variables.find(({ value }) => value.includes("\0"));
  if (wrong !== undefined) {
    throw new Misuse(`${wrong.variable} holds a zero byte, which no variable can; say \`expose: file\``);
  }
}

/**
 * Makes a folder that only this user can enter: in memory where the machine has such a place, else in the runner's own
 * folder for the job, never in the workspace, where it would be packed, cached or committed. Throws [Misuse].
 */
export function privateFolder(environment) {
  const places = [isMemory("/dev/shm") ? "/dev/shm" : "", environment.RUNNER_TEMP ?? ""];
  const why = [];
  for (const place of places.filter((each) => each !== "")) {
    if (isWithin(place, environment.GITHUB_WORKSPACE)) {
      why.push(`${place} is in the workspace`);
      continue;
    }
    try {
      // mkdtemp makes it with mode 0700.
      return fs.mkdtempSync(path.join(fs.realpathSync(place), PREFIX));
    } catch (fault) {
      why.push(`${place}: ${fault.code}`);
    }
  }
  throw new Misuse(`there is no place for files outside of the workspace (${why.join("; ") || "RUNNER_TEMP is not set"})`);
}

function isMemory(place) {
  try {
    return os.platform() === "linux" && fs.statfsSync(place).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

function isWithin(place, workspace) {
  if (!workspace) {
    return false;
  }
  try {
    const way = path.relative(fs.realpathSync(workspace), fs.realpathSync(place));
    return way === "" || (!way.startsWith("..") && !path.isAbsolute(way));
  } catch {
    // What cannot be looked at is not where anything is put, either.
    return false;
  }
}

/** Writes each value into a file of its own; answers the same variables with the files' paths. */
export function writeFiles(folder, variables) {
  return variables.map(({ variable, value }) => {
    const file = path.join(folder, variable);
    // `wx`: a file or link that is there already is not ours.
    fs.writeFileSync(file, value, { mode: 0o600, flag: "wx" });
    return { variable, value: file };
  });
}

/** Removes a folder that [privateFolder] made, and nothing else. */
export function removeFolder(folder) {
  if (path.isAbsolute(folder) && path.basename(folder).startsWith(PREFIX)) {
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

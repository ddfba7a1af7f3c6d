// What the runner reads of us: lines of stdout, and the files whose paths it gives. Every value goes through
// `encoding.mjs` on its way.

import { randomBytes } from "node:crypto";
import fs from "node:fs";

import { command, entry, masks } from "./encoding.mjs";

const TITLE = { title: "Hallpass" };

/** A line of the log. */
export function say(text) {
  // A line of its own could be a command; after a space that the runner trims it could, too.
  write(text.replace(/[\r\n]+/g, " ").replace(/^\s*(::|##)/, "· $1").replaceAll("##[", "## ["));
}

/** An annotation beside the log; `title` comes first on it. */
export function annotate(level, text) {
  write(command(level, text, TITLE));
}

/** Keeps a secret out of the log from now on. */
export function mask(value) {
  masks(value).forEach(write);
}

function write(line) {
  process.stdout.write(`${line}\n`);
}

/** What other steps read as `steps.ID.outputs.NAME`. */
export function output(name, value) {
  append("GITHUB_OUTPUT", name, value);
}

/** What our own post step reads as `STATE_NAME`, and no other step. */
export function state(name, value) {
  append("GITHUB_STATE", name, value);
}

/** A variable of all later steps. */
export function variable(name, value) {
  append("GITHUB_ENV", name, value);
}

/** A part of the job's summary; it is an addition, so that a runner without summaries is no fault. */
export function summary(markdown) {
  const file = process.env.GITHUB_STEP_SUMMARY;
  if (file) {
    fs.appendFileSync(file, `${markdown}\n`);
  }
}

function append(file, name, value) {
  const path = process.env[file];
  if (!path) {
    throw new Error(`${file} is not set: this is no runner of GitHub Actions`);
  }
  fs.appendFileSync(path, entry(name, value, `hallpass_${randomBytes(24).toString("hex")}`));
}

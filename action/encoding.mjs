// How texts are written for the runner: workflow commands on stdout, entries of its files, and the shapes in which a
// secret may stand in a log. Pure functions: nothing here reads or writes anything.
//
// Source: actions/runner, src/Runner.Common/ActionCommand.cs (what it unescapes, and in which order),
// src/Runner.Worker/ActionCommandManager.cs (`add-mask` registers the whole value and every line of it, trimmed) and
// src/Runner.Worker/FileCommandManager.cs (entries with a delimiter), read in November 2026.

/** The shortest text that is masked: shorter ones stand everywhere, and masking them makes a log unreadable. */
export const SHORTEST = 4;

/** Where `base64` breaks its lines. */
const BASE64_LINE = 76;

/** A greater value is not also masked as wrapped base64: the runner looks for every mask in every line. */
const MOST_WRAPPED = 16 * 1024;

/**
 * The data of a command. `%` comes first, so that what the runner unescapes last is what we escaped first: nothing in
 * a text can become a line break, and so another command.
 */
export function data(text) {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

/** A property of a command. */
export function property(text) {
  return data(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}

/** A whole command, one line without its end. */
export function command(name, text, properties = {}) {
  const written = Object.entries(properties).map(([key, value]) => `${key}=${property(value)}`);
  return `::${name}${written.length > 0 ? ` ${written.join(",")}` : ""}::${data(text)}`;
}

/** The commands that mask a secret: one for its value, and one for each other shape in which tools write it. */
export function masks(value) {
  const texts = shapes(value).map(worthMasking).filter((text) => text !== "");
  return [...new Set(texts)].map((text) => command("add-mask", text));
}

/**
 * An entry of GITHUB_ENV, GITHUB_OUTPUT or GITHUB_STATE. The delimiter must be one that nobody can guess: a value that
 * holds it as a line could go on with entries of its own.
 */
export function entry(name, value, delimiter) {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
    throw new TypeError(`\`${name}\` is no name of an entry`);
  }
  if (!/^[A-Za-z0-9_-]{16,}$/.test(delimiter) || value.split(/\r\n|\r|\n/).includes(delimiter)) {
    throw new TypeError("the delimiter does not delimit");
  }
  return `${name}<<${delimiter}\n${value}\n${delimiter}\n`;
}

/** A text that others wrote, for one line of a person's log: no control characters, no end. */
export function shown(text, most = 500) {
  // Also what turns the direction of writing, and what is no character by itself.
  const plain = String(text).toWellFormed().replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ").trim();
  const letters = [...plain];
  return letters.length > most ? `${letters.slice(0, most).join("")}…` : plain;
}

/** The same within Markdown: shown as it is, whatever it holds. */
export function markdown(text, most = 500) {
  const plain = shown(text, most);
  // Ids and names of claims: nothing in them is a mark, and a person may copy them.
  if (/^[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*$/.test(plain)) {
    return plain;
  }
  return plain.replace(/[\\`*_{}[\]()<>#+\-.!|~&@:$^"'=]/g, (mark) => `&#${mark.codePointAt(0)};`);
}

/** Every shape of a value in which a log may show it. An accident guard, not a boundary. */
function shapes(value) {
  const text = value.toWellFormed();
  if ([...text.trim()].length < SHORTEST) {
    return [];
  }
  // A newline at the end is how a file is stored; the shell takes it away.
  return [...new Set([text, text.trim()])].flatMap((each) => [each, ...json(each), ...percent(each), ...base64(each)]);
}

/** As the inside of a JSON string: plain, for HTML (Go), in ASCII (Python), with slashes escaped (PHP). */
function json(text) {
  const plain = JSON.stringify(text).slice(1, -1);
  const html = plain.replace(/[<>&]/g, (mark) => unicode(mark));
  return [plain, html, plain.replaceAll("/", "\\/"), plain.replace(/[^\x00-\x7f]/g, (unit) => unicode(unit))];
}

function unicode(unit) {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** As a part of a URL (JavaScript; RFC 3986; Python, which keeps slashes), and as a form's value. */
function percent(text) {
  const component = encodeURIComponent(text);
  const strict = component.replace(/[!'()*]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`);
  const form = new URLSearchParams([["", text]]).toString().slice(1);
  return [component, strict, strict.replaceAll("%2F", "/"), form];
}

/** As base64 of either alphabet, by itself, in lines, and after one or two bytes of something else, as in `user:…`. */
function base64(text) {
  const bytes = Buffer.from(text, "utf8");
  const whole = bytes.toString("base64");
  const found = [whole, whole.replaceAll("=", "")];
  for (const before of [0, 1, 2]) {
    const padded = Buffer.concat([Buffer.alloc(before), bytes]);
    // A character holds six bits; those that hold bits of a neighbour are not sure.
    const sure = padded.toString("base64").slice(Math.ceil((before * 8) / 6), Math.floor((padded.length * 8) / 6));
    found.push(sure);
    if (before === 0 && bytes.length <= MOST_WRAPPED && sure.length > BASE64_LINE) {
      found.push(sure.match(new RegExp(`.{1,${BASE64_LINE}}`, "g")).join("\n"));
    }
  }
  const url = found.map((each) => each.replaceAll("+", "-").replaceAll("/", "_"));
  // Two or three characters of base64 are a word of any language.
  return [...found, ...url].filter((each) => each.length > SHORTEST);
}

/**
 * What of a text is masked. The runner registers each line of it, so that lines which stand everywhere are left out:
 * a masked `{` would make every log unreadable, and says nothing.
 */
function worthMasking(text) {
  const lines = text.split(/\r\n|\r|\n/);
  const said = lines.filter((line) => line.trim() !== "");
  if (said.length <= 1) {
    return [...text.trim()].length >= SHORTEST ? text : "";
  }
  const worth = said.filter((line) => [...line.trim()].length >= SHORTEST && /[\p{L}\p{N}\p{S}]/u.test(withoutMarks(line)));
  return worth.length === said.length ? text : worth.join("\n");
}

/** ASCII has its symbols among the letters' categories, too: `+` and `=` are no more than punctuation here. */
function withoutMarks(line) {
  return line.replace(/[$+<=>^`|~]/g, "");
}

// Laws of what the runner is written: whatever a value holds, it is one command, it comes back whole, and no part of it
// becomes a command, an entry or a property of its own. `decode` does what actions/runner does
// (src/Runner.Common/ActionCommand.cs), in its order; the values come from a seeded generator.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SHORTEST, command, entry, markdown, masks, shown } from "../../action/encoding.mjs";

const ROUNDS = 4_000;
const DELIMITER = "hallpass_0123456789abcdef";

/** Mulberry32: small, seeded, and the same on every machine. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** What has broken encoders of workflow commands before, and ordinary text. */
const PIECES = [
  "%", "%25", "%0A", "%0D", "%250A", "%3A", "%2C", "\r", "\n", "\r\n", "\n\n", "::", "::add-mask::", "::error::x",
  "##[error]", "::stop-commands::x", "::set-output name=a::b", "a", "password", " ", "\t", "{", "}", "-----", "=", "<<",
  "EOF", DELIMITER, "🔑", "é", "\u2028", "\u0085", "\u0000", "\ud800", "\"", "\\", "/", "+", "<", "&", "'", "--", "x".repeat(90),
];

function values(seed) {
  const random = generator(seed);
  const pick = () => PIECES[Math.floor(random() * PIECES.length)];
  return Array.from({ length: ROUNDS }, () => Array.from({ length: Math.floor(random() * 9) }, pick).join(""));
}

/** As the runner reads the lines of a process: a carriage return ends one, too. */
function lines(written) {
  return written.split(/\r\n|\r|\n/);
}

/** As the runner reads a command; nothing where a line is none. */
function decode(line) {
  const text = line.trimStart();
  if (!text.startsWith("::")) {
    return undefined;
  }
  const end = text.indexOf("::", 2);
  const [name, ...rest] = text.slice(2, end).split(" ");
  const unescape = (escaped, pairs) => pairs.reduce((all, [code, mark]) => all.replaceAll(code, mark), escaped);
  const breaks = [["%0D", "\r"], ["%0A", "\n"]];
  const pairs = rest.join(" ").split(",").filter((pair) => pair !== "").map((pair) => {
    const [key, ...value] = pair.split("=");
    return [key, unescape(value.join("="), [...breaks, ["%3A", ":"], ["%2C", ","], ["%25", "%"]])];
  });
  const data = unescape(text.slice(end + 2), [...breaks, ["%25", "%"]]);
  return { name, data, properties: Object.fromEntries(pairs) };
}

test("a command is one line and comes back as it was", () => {
  for (const value of values(1)) {
    const written = command("error", value, { title: value.trim() === "" ? "x" : value });
    assert.equal(lines(written).length, 1, JSON.stringify(value));
    const read = decode(written);
    assert.equal(read.name, "error");
    assert.equal(read.data, value);
  }
});

test("a property stays a property, whatever it holds", () => {
  for (const value of values(2).filter((each) => each !== "" && !each.startsWith("="))) {
    const read = decode(command("notice", "text", { title: value, file: "f" }));
    assert.deepEqual(Object.keys(read.properties), ["title", "file"]);
    assert.equal(read.data, "text", JSON.stringify(value));
    assert.equal(read.properties.file, "f");
  }
});

test("every mask is one command, and nothing but a mask", () => {
  for (const value of values(3)) {
    for (const written of masks(value)) {
      assert.equal(lines(written).length, 1, JSON.stringify(value));
      assert.equal(decode(written).name, "add-mask");
    }
  }
});

test("each line of a secret is masked, but for those that stand everywhere", () => {
  for (const value of values(4)) {
    const known = registered(masks(value));
    for (const line of lines(value.toWellFormed()).map((each) => each.trim())) {
      const isLong = [...line].length >= SHORTEST;
      const says = /[\p{L}\p{N}]/u.test(line);
      if (isLong && says) {
        assert.ok(known.has(line), `${JSON.stringify(line)} of ${JSON.stringify(value)}`);
      }
    }
    for (const mask of known) {
      assert.ok([...mask.trim()].length >= SHORTEST, `${JSON.stringify(mask)} would be masked everywhere`);
    }
  }
});

/** What the runner's masker knows after these commands: each whole value, and each line of it, trimmed. */
function registered(commands) {
  const data = commands.map((written) => decode(written).data);
  const parts = data.flatMap((text) => text.split(/[\r\n]/).map((line) => line.trim()).filter((line) => line !== ""));
  return new Set([...data, ...parts]);
}

test("a secret is masked in the shapes that tools write", () => {
  // Written down by hand with coreutils' base64, Python's urllib and json, Go's encoding/json.
  const known = registered(masks("p@ss w/rd?<é>"));
  const shapes = [
    "p@ss w/rd?<é>", "cEBzcyB3L3JkPzzDqT4=", "cEBzcyB3L3JkPzzDqT4", "p%40ss%20w%2Frd%3F%3C%C3%A9%3E",
    "p%40ss%20w/rd%3F%3C%C3%A9%3E", "p%40ss+w%2Frd%3F%3C%C3%A9%3E", "p@ss w\\/rd?<é>", "p@ss w/rd?<\\u00e9>",
    "p@ss w/rd?\\u003cé\\u003e",
  ];
  for (const shape of shapes) {
    assert.ok(known.has(shape), shape);
  }
});

test("base64 is found at every alignment, and in the lines of `base64`", () => {
  const secret = "topsecret-value-0123";
  const known = [...registered(masks(secret))];
  for (let before = 0; before < 6; before += 1) {
    for (let after = 0; after < 4; after += 1) {
      const whole = Buffer.from(`${"x".repeat(before)}${secret}${"y".repeat(after)}`).toString("base64");
      const found = known.filter((mask) => whole.includes(mask)).map((mask) => mask.length);
      // All but the characters that a neighbour shares.
      assert.ok(Math.max(...found) >= 24, `${before} ${after}: ${whole}`);
    }
  }
  const long = `${"k".repeat(100)}-end-of-the-key`;
  const first = Buffer.from(long).toString("base64").slice(0, 76);
  assert.ok(registered(masks(long)).has(first));
});

test("a value of 64 KiB is masked, and quickly", () => {
  const value = `${"0123456789abcdef".repeat(4)}\n`.repeat(1008);
  const start = performance.now();
  const written = masks(value);
  assert.ok(registered(written).has("0123456789abcdef".repeat(4)));
  assert.ok(performance.now() - start < 10_000);
});

test("what is short or only punctuation leaves logs as they are", () => {
  for (const value of ["", "a", "abc", "abc\n", "\n\n\n\n", "   ", "🔑🔑"]) {
    assert.deepEqual(masks(value), [], JSON.stringify(value));
  }
  const known = registered(masks('{\n  "key": "value-of-it",\n}\n----\nab\n'));
  assert.ok(known.has('"key": "value-of-it",'));
  for (const mark of ["{", "}", "----", "ab"]) {
    assert.ok(!known.has(mark), mark);
  }
  assert.ok(registered(masks("!@#$%^&*()")).has("!@#$%^&*()"), "a whole value may be of marks alone");
});

test("an entry is read back whole, and is one", () => {
  let refused = 0;
  for (const value of values(5)) {
    const isHostile = value.split(/\r\n|\r|\n/).includes(DELIMITER);
    if (isHostile) {
      assert.throws(() => entry("NAME", value, DELIMITER), TypeError);
      refused += 1;
      continue;
    }
    const read = entries(entry("NAME", value, DELIMITER) + entry("NEXT", "n", DELIMITER));
    assert.deepEqual(read, [["NAME", value], ["NEXT", "n"]], JSON.stringify(value));
  }
  assert.ok(refused > 0, "the generator tries the delimiter, too");
});

/** As the runner reads a file of entries on Linux (FileCommandManager.cs, EnvFileKeyValuePairs). */
function entries(text) {
  const found = [];
  let at = 0;
  const line = () => {
    if (at >= text.length) {
      return undefined;
    }
    const end = text.indexOf("\n", at);
    const read = end < 0 ? text.slice(at) : text.slice(at, end);
    at = end < 0 ? text.length : end + 1;
    return read;
  };
  for (let head = line(); head !== undefined; head = line()) {
    if (head === "") {
      continue;
    }
    const [name, delimiter] = head.split("<<");
    const body = [];
    for (let next = line(); next !== delimiter; next = line()) {
      assert.notEqual(next, undefined, "the delimiter is missing");
      body.push(next);
    }
    found.push([name, body.join("\n")]);
  }
  return found;
}

test("a name or delimiter that could be something else is refused", () => {
  for (const name of ["", "A B", "A=B", "A<<B", "A\nB", "1A", "A-B"]) {
    assert.throws(() => entry(name, "v", DELIMITER), TypeError, name);
  }
  for (const delimiter of ["", "EOF", "short", "with space in it all", "with\nbreak-in-it-all"]) {
    assert.throws(() => entry("NAME", "v", delimiter), TypeError, delimiter);
  }
});

test("what others wrote is one line of plain text, also in Markdown", () => {
  for (const value of values(6)) {
    assert.ok(!/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(shown(value)), JSON.stringify(value));
    assert.ok(!/[`*[\]<>|@]|(^|[^0-9A-Za-z])_|_($|[^0-9A-Za-z])/.test(markdown(value)), JSON.stringify(value));
  }
  assert.equal(shown("a\u202eb\nc"), "a b c");
  assert.equal([...shown("é".repeat(600))].length, 501);
  assert.equal(markdown("dec_01m8g2zr9wfjya1pzze0rwf7z2"), "dec_01m8g2zr9wfjya1pzze0rwf7z2");
  assert.equal(markdown("_x_ __y__"), "&#95;x&#95; &#95;&#95;y&#95;&#95;");
  assert.equal(markdown("![x](http://h)"), "&#33;&#91;x&#93;&#40;http&#58;//h&#41;");
});

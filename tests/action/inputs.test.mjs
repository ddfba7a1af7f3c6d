// Laws of what a step may say, and of the names that later steps find.

import assert from "node:assert/strict";
import { test } from "node:test";

import { named } from "../../action/expose.mjs";
import { read } from "../../action/inputs.mjs";

const inputs = (more) => {
  const given = { URL: "https://hallpass.example", GRANT: "deploy", ...more };
  return read(Object.fromEntries(Object.entries(given).map(([name, value]) => [`INPUT_${name}`, value])));
};

test("what is asked is what the API takes", () => {
  assert.deepEqual(inputs({ EXPOSE: "env" }).body, { grants: [{ name: "deploy" }] });
  assert.deepEqual(inputs({}).body, { grants: [{ name: "deploy" }], dry_run: true }, "nothing is minted for nobody");
  const asked = inputs({ GRANT: "a, b\nc", CREDENTIALS: "db\nb.aws", TTL: "10m", REASON: "why", EXPOSE: "file" });
  assert.deepEqual(asked.body, {
    grants: [
      { name: "a", credentials: ["db"], ttl_seconds: 600 },
      { name: "b", credentials: ["db", "aws"], ttl_seconds: 600 },
      { name: "c", credentials: ["db"], ttl_seconds: 600 },
    ],
    reason: "why",
  });
  assert.deepEqual(inputs({ GRANT: "a b", CREDENTIALS: "b.aws", EXPOSE: "env" }).body.grants, [
    { name: "a" },
    { name: "b", credentials: ["aws"] },
  ]);
});

test("the audience is the address as it is written", () => {
  assert.equal(inputs({ URL: "https://Hallpass.example/" }).audience, "https://Hallpass.example/");
  assert.equal(inputs({ AUDIENCE: "other" }).audience, "other");
});

test("what no broker would take is said before it is asked", () => {
  const wrong = [
    [{ URL: "" }, "`url` is missing"], [{ URL: "http://h.example" }, "in the clear"], [{ URL: "https://h?x=1" }, "scheme, host"],
    [{ GRANT: "" }, "`grant` is missing"], [{ GRANT: "a b c d e f g h i" }, "8 at most"], [{ GRANT: "A" }, "no grant's name"],
    [{ GRANT: "a a" }, "named twice"], [{ EXPOSE: "output" }, "none of none, env, file"], [{ TTL: "10" }, "no duration"],
    [{ TTL: "0s" }, "no duration"], [{ CREDENTIALS: "x.db" }, "not asked for"], [{ CREDENTIALS: "a.b.c" }, "neither"],
    [{ CREDENTIALS: "db deploy.db" }, "named twice"], [{ REASON: "x".repeat(257) }, "256"], [{ TIMEOUT: "1h" }, "5s to 5m"],
    [{ ENV: "A=deploy.db.x" }, "`expose: none` makes none"], [{ EXPOSE: "env", ENV: "A" }, "NAME=grant"],
    [{ EXPOSE: "env", ENV: "A=other.db.x" }, "not asked for"], [{ EXPOSE: "env", ENV: "A=deploy.db.x\nA=deploy.db.y" }, "twice"],
    [{ EXPOSE: "env", ENV: "NODE_OPTIONS=deploy.db.x" }, "runner's own"], [{ EXPOSE: "env", ENV: "GITHUB_ENV=deploy.db.x" }, "runner's own"],
    [{ CA: "x" }, "no certificate"], [{ "CA-FILE": "/nowhere" }, "ENOENT"], [{ CA: "x", "CA-FILE": "y" }, "both"],
  ];
  for (const [given, due] of wrong) {
    assert.throws(() => inputs(given), (fault) => fault.message.includes(due), `${JSON.stringify(given)}: ${due}`);
  }
});

const issuance = (credential, fields) => ({ grant: "deploy", credential, fields });

test("without a name every field has one by the rule of `hallpass exec`", () => {
  const found = named([], [
    issuance("db", { username: "u", password: "p" }),
    issuance("npm-token", { value: "n" }),
    issuance("cloud", { access_key: "AKIA", secret_key: "s", security_token: "t", arn: "a" }),
  ]);
  assert.deepEqual(found.map(({ variable, value }) => `${variable}=${value}`), [
    "DB_PASSWORD=p", "DB_USERNAME=u", "NPM_TOKEN_VALUE=n", "AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=s",
    "AWS_SESSION_TOKEN=t", "CLOUD_ARN=a",
  ]);
});

test("with a name nothing else is given, and what is not there is refused", () => {
  const given = [issuance("db", { username: "u", "pass.word": "p" })];
  const { variables } = inputs({ EXPOSE: "env", ENV: "PGPASSWORD=deploy.db.pass.word" });
  assert.deepEqual(named(variables, given), [{ variable: "PGPASSWORD", value: "p" }]);
  const ask = (line) => named(inputs({ EXPOSE: "env", ENV: line }).variables, given);
  assert.throws(() => ask("A=deploy.db.nothing"), /username, pass\.word/);
  assert.throws(() => ask("A=deploy.db.constructor"), /has no field/);
  assert.throws(() => ask("A=deploy.other.username"), /no credential `other`/);
});

test("nobody who writes a secret's fields chooses what a program obeys", () => {
  assert.throws(() => named([], [issuance("ld", { preload: "x" })]), /LD_PRELOAD/);
  assert.throws(() => named([], [issuance("a-b", { c: "1" }), issuance("a", { b_c: "2" })]), /A_B_C/);
  assert.throws(() => named([], [issuance("2fa", { code: "1" })]), /2FA_CODE/);
});

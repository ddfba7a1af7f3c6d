// Laws of the action's HTTP that need no broker: where a token may be sent, when a proxy is asked, how long to wait.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Unreachable, asksForAnotherTry, patiently, proxyFor, secureUrl, waitMs } from "../../action/http.mjs";

test("a token is sent over https, or to loopback", () => {
  for (const good of ["https://h.example", "https://h.example:8440/base", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"]) {
    assert.ok(secureUrl(good), good);
  }
  for (const bad of ["", "h.example", "http://h.example", "http://127.0.0.1.example", "ftp://h", "https://u:p@h", "https://h/#f", "file:///x"]) {
    assert.throws(() => secureUrl(bad), TypeError, bad);
  }
});

test("a proxy is asked for what the environment does not leave out", () => {
  const proxied = (url, no, more = {}) => proxyFor(new URL(url), { HTTPS_PROXY: "http://proxy:3128", NO_PROXY: no, ...more });
  assert.equal(proxied("https://h.example", "").host, "proxy:3128");
  assert.equal(proxyFor(new URL("https://h.example"), {}), undefined);
  assert.equal(proxied("http://127.0.0.1:1", ""), undefined, "plain http is loopback");
  const left = [
    ["https://h.example", "*"], ["https://h.example", "h.example"], ["https://h.example", ".example"],
    ["https://h.example", "x, example"], ["https://H.Example", "h.EXAMPLE"], ["https://h.example:8440", "h.example:8440"],
    ["https://10.1.2.3", "10.0.0.0/8"], ["https://10.1.2.3", "10.1.2.3"], ["https://[fd00::1]", "fd00::/8"],
    ["https://[fd00::1]", "fd00::1"], ["https://h.example", "*.example"],
  ];
  for (const [url, no] of left) {
    assert.equal(proxied(url, no), undefined, `${url} by ${no}`);
  }
  const kept = [
    ["https://h.example", "other"], ["https://nothexample", "hexample"], ["https://h.example", "h.example:1"],
    ["https://10.1.2.3", "11.0.0.0/8"], ["https://10.1.2.3", "10.0.0.0/nonsense"], ["https://10.1.2.3", ".3"],
    ["https://h.example", ","],
  ];
  for (const [url, no] of kept) {
    assert.ok(proxied(url, no), `${url} by ${no}`);
  }
  assert.equal(proxied("https://h.example", "", { https_proxy: "proxy-of-small-letters" }).host, "proxy-of-small-letters");
  assert.throws(() => proxyFor(new URL("https://h"), { HTTPS_PROXY: "socks5://u:secret@p" }), (fault) => !fault.message.includes("secret"));
});

test("another try is made where the contract says so, and nowhere else", () => {
  for (const status of [429, 502, 503, 504]) {
    assert.ok(asksForAnotherTry(status));
  }
  for (const status of [200, 400, 401, 403, 404, 409, 413, 415, 422, 500]) {
    assert.ok(!asksForAnotherTry(status), String(status));
  }
  assert.ok(asksForAnotherTry(409, "request_in_progress"));
  assert.ok(!asksForAnotherTry(409, "token_replayed"));
});

test("waits are random below a bound that doubles, and never shorter than the answer asks", () => {
  assert.equal(waitMs(0, {}, 0, () => 0), 0);
  assert.ok(waitMs(0, {}, 0, () => 0.999) < 250);
  assert.ok(waitMs(3, {}, 0, () => 0.999) > 1_900);
  assert.ok(waitMs(60, {}, 0, () => 0.999) < 8_000);
  assert.equal(waitMs(0, { "retry-after": "7" }, 0, () => 0), 7_000);
  assert.equal(waitMs(0, { "retry-after": "Thu, 01 Jan 1970 00:00:09 GMT" }, 4_000, () => 0), 5_000);
  assert.equal(waitMs(0, { "retry-after": "nonsense" }, 0, () => 0), 0);
});

const answered = (status, headers = {}) => ({ status, headers, text: "" });
const patience = (more) => ({ until: Date.now() + 5_000, tries: 5, codeOf: () => undefined, ...more });

test("tries end with an answer that stays, with their number, and with the time", async () => {
  const script = (answers) => {
    let at = 0;
    const once = async () => {
      const next = answers[Math.min(at, answers.length - 1)];
      at += 1;
      if (next instanceof Error) {
        throw next;
      }
      return next;
    };
    return { once, count: () => at };
  };
  const passing = new Unreachable("gone", true);
  let tried = script([passing, answered(503), answered(200)]);
  assert.equal((await patiently(tried.once, patience())).status, 200);
  assert.equal(tried.count(), 3);

  tried = script([answered(403)]);
  assert.equal((await patiently(tried.once, patience())).status, 403);
  assert.equal(tried.count(), 1);

  tried = script([answered(503)]);
  assert.equal((await patiently(tried.once, patience({ tries: 2 }))).status, 503);
  assert.equal(tried.count(), 2);

  tried = script([answered(429, { "retry-after": "3600" })]);
  assert.equal((await patiently(tried.once, patience())).status, 429);
  assert.equal(tried.count(), 1, "an hour is not waited for");

  tried = script([new Unreachable("its certificate is not trusted", false)]);
  await assert.rejects(patiently(tried.once, patience()), /certificate/);
  assert.equal(tried.count(), 1);

  tried = script([passing]);
  await assert.rejects(patiently(tried.once, patience({ tries: 3 })), /gone/);
  assert.equal(tried.count(), 3);
});

test("a cancelled job does not wait for another try", async () => {
  const stop = new AbortController();
  const once = async () => {
    stop.abort();
    return answered(503);
  };
  assert.equal((await patiently(once, patience({ stop: stop.signal }))).status, 503);
});

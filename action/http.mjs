// HTTP as the action needs it, from Node's own library: a deadline for every try, a proxy where the environment names
// one, a private authority where the step names one, no redirects, bounded answers. Nothing switches verification off.

import http from "node:http";
import https from "node:https";
import net from "node:net";
import tls from "node:tls";

/** One try; the broker's own deadline of an exchange is 15 s. */
export const ONE_TRY_MS = 20_000;

/** The greatest answer: 16 credentials of 64 KiB each, and what stands around them. */
const MOST_BYTES = 4 * 1024 * 1024;

/** The first bound of the random wait between two tries, and the greatest. */
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8_000;

/** Nobody answered, or nobody whom we may believe. */
export class Unreachable extends Error {
  /** `isPassing`: another try may find it otherwise. */
  constructor(message, isPassing) {
    super(message);
    this.name = "Unreachable";
    this.isPassing = isPassing;
  }
}

/**
 * Reads an address to which a token may be sent: https, or plain http on loopback.
 *
 * Throws a `TypeError` that says what is wrong with it.
 */
export function secureUrl(text) {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.hostname === "") {
    throw new TypeError(`\`${text}\` is no URL such as https://hallpass.example.com`);
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url))) {
    throw new TypeError(`\`${text}\` is neither https nor on loopback; a token would pass in the clear`);
  }
  if (url.username !== "" || url.password !== "" || url.hash !== "") {
    throw new TypeError(`\`${text}\` holds a name, a password or a fragment`);
  }
  return url;
}

function isLoopback(url) {
  const host = bare(url.hostname);
  return host === "localhost" || host === "::1" || (net.isIPv4(host) && host.startsWith("127."));
}

/** A host without the brackets of IPv6. */
function bare(hostname) {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}

/**
 * Sends a request and answers `{ status, headers, text }`, whatever the status.
 *
 * `request` has `method`, `url`, `headers`, and where they apply `body` and `ca` (PEM: the only authorities trusted).
 * Throws [Unreachable].
 */
export async function send(request, environment, patienceMs = ONE_TRY_MS) {
  const { method, url, headers, body, ca } = request;
  const proxy = proxyFor(url, environment);
  const library = url.protocol === "https:" ? https : http;
  const options = { method, headers: { connection: "close", "user-agent": "hallpass-action", ...headers } };
  if (url.protocol === "https:") {
    options.agent = proxy === undefined ? new https.Agent({ ca }) : new Tunnel(proxy, { ca }, patienceMs);
    options.minVersion = "TLSv1.2";
    // Whatever NODE_TLS_REJECT_UNAUTHORIZED says: a token is sent to nobody who cannot prove who it is.
    options.rejectUnauthorized = true;
  } else {
    options.agent = new http.Agent();
  }
  if (body !== undefined) {
    options.headers["content-length"] = Buffer.byteLength(body);
  }
  return new Promise((resolve, reject) => {
    const sent = library.request(url, options, (response) => {
      const pieces = [];
      let bytes = 0;
      response.on("data", (piece) => {
        bytes += piece.length;
        if (bytes > MOST_BYTES) {
          sent.destroy(new Unreachable(`${url.host}: the answer has more than 4 MiB`, false));
        }
        pieces.push(piece);
      });
      response.on("error", (fault) => reject(unreachable(url, fault)));
      response.on("end", () => {
        const text = Buffer.concat(pieces).toString("utf8");
        resolve({ status: response.statusCode, headers: response.headers, text });
      });
    });
    // Not the socket's idle time: an answer that drips would never end.
    const end = setTimeout(() => {
      sent.destroy(new Unreachable(`${url.host}: no answer within ${Math.ceil(patienceMs / 1000)} s`, true));
    }, patienceMs);
    sent.on("error", (fault) => reject(unreachable(url, fault)));
    sent.on("close", () => clearTimeout(end));
    sent.end(body);
  });
}

function unreachable(url, fault) {
  if (fault instanceof Unreachable) {
    return fault;
  }
  const code = fault.code ?? fault.message;
  if (/CERT|ERR_TLS|SIGNATURE|CRL/.test(code)) {
    const hint = "name its authority by `ca-file`; there is no switch to trust anybody";
    return new Unreachable(`${url.host}: its certificate is not trusted (${code}); ${hint}`, false);
  }
  return new Unreachable(`${url.host}: ${code}`, true);
}

/** Connections through a proxy: CONNECT, then TLS with the host itself, so that the proxy sees no token. */
class Tunnel extends https.Agent {
  constructor(proxy, options, patienceMs) {
    super(options);
    this.proxy = proxy;
    this.patienceMs = patienceMs;
  }

  createConnection(options, callback) {
    const { proxy } = this;
    const host = net.isIPv6(options.host) ? `[${options.host}]` : options.host;
    const target = `${host}:${options.port}`;
    const headers = { host: target };
    if (proxy.username !== "") {
      const login = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
      headers["proxy-authorization"] = `Basic ${Buffer.from(login).toString("base64")}`;
    }
    const library = proxy.protocol === "https:" ? https : http;
    const port = proxy.port === "" ? (proxy.protocol === "https:" ? 443 : 80) : Number(proxy.port);
    const asked = { host: bare(proxy.hostname), port, method: "CONNECT", path: target, headers, agent: false };
    const connect = library.request(asked);
    connect.setTimeout(this.patienceMs, () => connect.destroy(new Unreachable(`${proxy.host}: the proxy is silent`, true)));
    connect.on("error", (fault) => callback(fault));
    connect.on("response", (response) => {
      response.destroy();
      callback(refusedBy(proxy, response.statusCode));
    });
    connect.on("connect", (response, socket) => {
      if (response.statusCode !== 200) {
        socket.destroy();
        callback(refusedBy(proxy, response.statusCode));
        return;
      }
      socket.setTimeout(0);
      callback(null, tls.connect({ ...options, socket, path: undefined }));
    });
    connect.end();
  }
}

function refusedBy(proxy, status) {
  return new Unreachable(`${proxy.host}: the proxy answered ${status}`, status >= 500);
}

/** The proxy for an address, or nothing. Plain http is loopback here, and loopback is behind no proxy. */
export function proxyFor(url, environment) {
  const named = environment.https_proxy || environment.HTTPS_PROXY || "";
  if (url.protocol !== "https:" || named === "" || isLeftOut(url, environment.no_proxy || environment.NO_PROXY || "")) {
    return undefined;
  }
  const text = named.includes("://") ? named : `http://${named}`;
  const proxy = URL.canParse(text) ? new URL(text) : undefined;
  if (proxy === undefined || !["http:", "https:"].includes(proxy.protocol)) {
    // Without the value: it may hold a password.
    throw new Unreachable("HTTPS_PROXY is neither http://HOST:PORT nor https://HOST:PORT", false);
  }
  return proxy;
}

/** Whether `no_proxy` names the host: `*`, a name with all below it, an address, a network, each maybe with a port. */
function isLeftOut(url, names) {
  const host = bare(url.hostname).toLowerCase();
  const port = url.port === "" ? "443" : url.port;
  const entries = names.split(/[\s,]+/).filter((name) => name !== "");
  return entries.some((written) => {
    const entry = written.toLowerCase();
    if (entry === "*") {
      return true;
    }
    if (net.isIP(host) !== 0 && entry.includes("/")) {
      return isWithin(host, entry);
    }
    const [, name, only] = /^(.*?)(?::(\d+))?$/.exec(net.isIPv6(entry) ? `${entry}:${port}` : entry);
    const suffix = bare(name).replace(/^\*?\./, "");
    const isNamed = host === suffix || (net.isIP(host) === 0 && host.endsWith(`.${suffix}`));
    return suffix !== "" && isNamed && (only === undefined || only === port);
  });
}

function isWithin(host, network) {
  const [address, prefix] = network.split("/");
  const family = net.isIPv6(host) ? "ipv6" : "ipv4";
  const networks = new net.BlockList();
  try {
    networks.addSubnet(address, Number(prefix), family);
  } catch {
    return false;
  }
  return networks.check(host, family);
}

/** Whether an answer asks to be asked again (the contract's list). `code` is its problem's. */
export function asksForAnotherTry(status, code) {
  return [429, 502, 503, 504].includes(status) || (status === 409 && code === "request_in_progress");
}

/** How long to wait before the next try: what the answer asks for, and a random part whose bound doubles. */
export function waitMs(round, headers, now, random = Math.random) {
  const bound = Math.min(FIRST_WAIT_MS * 2 ** round, LONGEST_WAIT_MS);
  return retryAfterMs(headers["retry-after"], now) + random() * bound;
}

function retryAfterMs(text, now) {
  if (text === undefined) {
    return 0;
  }
  if (/^\d{1,9}$/.test(text.trim())) {
    return Number(text.trim()) * 1000;
  }
  const date = Date.parse(text);
  return Number.isNaN(date) ? 0 : Math.max(0, date - now);
}

/**
 * Tries until there is an answer that stays, or no time is left for another try.
 *
 * `once` gets the milliseconds that a try may take. `until` is a time in milliseconds; `codeOf` reads an answer's
 * problem code; `stop` ends the waiting, not a try. Answers the last answer, or throws the last [Unreachable].
 */
export async function patiently(once, { until, tries, stop, codeOf }) {
  for (let round = 0; ; round += 1) {
    const left = until - Date.now();
    let answer;
    let fault;
    try {
      answer = await once(Math.max(1, Math.min(ONE_TRY_MS, left)));
    } catch (caught) {
      if (!(caught instanceof Unreachable) || !caught.isPassing) {
        throw caught;
      }
      fault = caught;
    }
    const isOver = answer !== undefined && !asksForAnotherTry(answer.status, codeOf(answer));
    const wait = waitMs(round, answer?.headers ?? {}, Date.now());
    if (isOver || round + 1 >= tries || Date.now() + wait >= until || stop?.aborted) {
      if (answer === undefined) {
        throw fault;
      }
      return answer;
    }
    await pause(wait, stop);
  }
}

function pause(ms, stop) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

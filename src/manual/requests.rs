//! # Requests
//!
//! Whoever can reach the port can send anything. What may be sent is bounded in size, time and number; a bound is told
//! in a problem document where there is still somebody to tell, and good requests go on beside all of it. The laws are
//! `tests/served/requests.rs` and `tests/served/floods.rs`, byte by byte and frame by frame on the built binary.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | TLS handshake | 10 s | the connection ends |
//! | first bytes, and then the head of a request | 10 s each | 408, or the end without a word where nothing came |
//! | no request under way | 10 s | HTTP/1.1 ends, HTTP/2 says GOAWAY |
//! | head, request line included | 16 KiB, 100 headers | 431; 414 where the URI alone has more |
//! | body | 32 KiB, by its declared length or while it is read | 413 |
//! | body's time | 5 s | 408 |
//! | answer that the client does not read | 5 s | the connection ends |
//! | connection after its first answer to a token | 500 ms | no new request; it ends when its answers have left |
//! | HTTP/2 streams of a connection | 64 | REFUSED_STREAM, then GOAWAY |
//! | HTTP/2 streams reset at once, by either side | 20 | GOAWAY |
//! | connections of a listener | half of the process's descriptors, at most 8,192 | the oldest idle one makes way |
//! | requests in flight of a listener | `limits.in_flight` | 503 `overloaded` |
//! | requests of a source: an IPv4 address, or an IPv6 /64 | `limits.per_source_per_second` | 429 `rate_limited` |
//! | exchanges of a project | `limits.per_project_per_minute` | 429 `rate_limited` |
//!
//! `/livez` and what names no path pass neither places nor rates. A source is the peer of the connection, a peer of a
//! unix socket counting as loopback. Of a peer in `public.trusted_proxies` the end of `X-Forwarded-For` is read, one
//! address for each proxy that is trusted in turn; of any other peer, and on the admin listener, no header names a source. `Retry-After` is the least time and a spread by lot, so that those who were refused together do
//! not come back together. What is refused by size, time, number or rate is no entry of the ledger, and counts for
//! nobody.
//!
//! ## Read in one way only
//!
//! A request that a proxy in front could end elsewhere than we do is refused, or is the last of its connection: two
//! lengths, codings other than `chunked`, folded lines, a bare CR, a bare LF between chunks, a host in the target that is not
//! that of `Host`. One framed by `chunked` is always the last. Headers that decide (`Authorization`, `Content-Type`,
//! `Idempotency-Key`, `Host`) are said once. Paths are compared as written; nothing is decoded, joined or cut.
//!
//! ## Known holes
//!
//! - What is no HTTP/1 at all, and a head of more than twice the bound, hyper answers with the status alone.
//! - A bare LF ends a line of a head, as RFC 9112 section 2.2 allows and hyper does; a proxy in front that keeps one in
//!   a value breaks that RFC.
//! - A body holds its place in flight for the five seconds that it has. At the default limits four sources that send
//!   slow bodies as fast as they may fill all places, and others get 503 for as long. A proxy in front that takes
//!   bodies whole before it connects closes this.

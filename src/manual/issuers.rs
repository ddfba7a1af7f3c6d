//! # Issuers and their keys
//!
//! An issuer is trusted because the operator's configuration names it, by a URL that equals the `iss` of its tokens
//! byte for byte. For any other `iss` nothing leaves the process: no connection, no question to DNS. Its keys come by
//! discovery, from a `jwks_uri`, or from a `jwks_file` with the date `jwks_valid_until`.
//!
//! ## Times
//!
//! | what | how long | what it means |
//! |---|---|---|
//! | cool-down | 60 s | no fetch begins sooner after the last one of that issuer began, whether it succeeded or failed; a flood of invented key ids costs one fetch |
//! | least life of a set | 1 min | a shorter `Cache-Control: max-age` of the key set, `no-store` and `no-cache` count as this |
//! | greatest life of a set | 59 min | where the answer says nothing, or more. After it a request waits until the issuer was asked again, so that a withdrawn key is refused within the hour |
//! | keys of an issuer that cannot be reached | 24 h | from the last good fetch; then 503 `issuer_unavailable` |
//! | first retry | 60 s | after a failed fetch, without a job's asking; doubles with each failure. A job that needs the keys asks as soon as the cool-down is over |
//! | later retries | 5 min | at most |
//! | look at a key file | 1 s | an edited file is read at once |
//! | warning before a key file's date | 14 d | in `/readyz`, in `config check` and in the log |
//! | largest document | 256 KiB | a longer one is given up; so is one with more than 64 keys |
//!
//! At half of its life a set is fetched again beside the requests. Retries and refreshes come up to a quarter later
//! than said, by a draw of each replica, so that an issuer that comes back is not met by all at once. One fetch,
//! discovery included, ends within `deadlines.issuer`. `SIGHUP` fetches all keys at once, without a cool-down: use it
//! when an issuer has withdrawn a key.
//!
//! ## What is fetched, and what is not
//!
//! - `https` only, checked against `ca_file` where it is given, else against the system's authorities; plain `http` to
//!   a literal loopback address with `allow_private_addresses: true`.
//! - Private addresses only with `allow_private_addresses: true`; link-local ones and clouds' metadata services never.
//!   What is checked is the address that is connected to, after DNS, in whatever form of IPv6 it hides.
//! - Redirects are not followed, and the environment's proxies are not used.
//! - Compressed answers are refused. Nobody asked for them.
//! - The discovery document must name this issuer, and a `jwks_uri` of the same origin. For another origin set
//!   `jwks_uri` yourself. Google's is known.
//!
//! A set that cannot be read whole replaces nothing. One bad key among good ones is left out: RSA under 2048 bits or
//! over 8192, an exponent under 65537 or even, a point off its curve, `oct`, a `use` other than `sig`, `key_ops`
//! without `verify`, an `alg` that the key or the profile does not have, a private member, a name that two keys share.
//!
//! ## When an issuer is away
//!
//! Its jobs get 503 `issuer_unavailable` with a `Retry-After` that says when it can be asked again. Nobody else's do:
//! issuers share no lock and no queue, those who wait for keys take at most 63 of each 64 places of
//! `limits.in_flight`, and those who have a usable key do not wait for an issuer that is away. `/readyz` on the admin
//! listener lists the issuers with `fault` (its jobs are refused) and `warnings` (they will be), and stays 200: a dead
//! issuer fails its own jobs only.

//! # Hallpass as an OIDC issuer
//!
//! A service that takes `OpenID` Connect tokens can take Hallpass's: the kind `oidc` signs an assertion for one audience, and
//! whoever it is for checks it by public keys. No secret of that service is kept anywhere.
//!
//! ## What an assertion says
//!
//! | claim | value |
//! |---|---|
//! | `iss` | `assertions.issuer`, byte for byte |
//! | `sub` | `grant:` and the grant's name: 7 to 69 bytes, within what AWS (6 or more) and Google Cloud (127 or fewer) take |
//! | `aud` | the audience of the policy, one, as a string |
//! | `iat`, `nbf`, `exp` | whole seconds; `exp` is at most 300 s after `iat`, and `nbf` equals it |
//! | `jti` | the issuance's id, as the ledger has it |
//!
//! No claim of the CI token is in it. `typ` is `JWT`, `kid` the key's RFC 7638 thumbprint, `alg` RS256, or ES256 for the
//! audiences of `assertions.es256`. Both kinds of key are always published, so an audience can move from one to the other
//! at any time.
//!
//! Never signed: an assertion for this broker (`public.url`, `assertions.issuer`, the audience of any trusted issuer; without
//! regard to case and a slash at the end), and one for the usual audiences of AWS, Entra ID and Google Cloud, which have
//! kinds of their own. Policies that ask for one are refused at load, and `assertions.issuer` is refused as a CI issuer.
//!
//! ## Where it is found
//!
//! `/.well-known/openid-configuration` and `/.well-known/jwks.json` below `assertions.issuer`. Where that is `public.url`, the
//! public listener answers both. Where it is another URL, the listener answers 404 to the first, since a discovery document
//! must name the URL that it was asked at (`OpenID` Connect Discovery 1.0 section 4.3), and the second stays, for who copies
//! it from there. Serve the folder of `assertions.publish` at the issuer's URL then: every broker keeps it current, whole
//! files at a time. `hallpass keys publish DIR` writes the same once. The broker itself then need not be reachable from any
//! cloud.
//!
//! They are the only answers that a cache may keep: `Cache-Control: public, max-age=300`. AWS gives an issuer 5 s to answer,
//! and takes a 429 for a bad token: where many accounts trust one issuer, let a CDN or a bucket answer.
//!
//! ## Keys
//!
//! | state | verifiers are told | signs | from | until |
//! |---|---|---|---|---|
//! | published | yes | no | `keys rotate assertions` | `assertions.key_lead` later (24 h; 1 h to 30 d) |
//! | active | yes | yes | then | the next key's turn |
//! | retired | yes | no | then | 300 s, the longest life of what it signed, and `key_lead` later |
//! | removed | no | no | then | |
//!
//! A store that was made before there was ES256 gets that key when a broker first serves it: it is published then, and
//! signs after `assertions.key_lead`; until that the audiences of `assertions.es256` are answered 502, and `doctor` says so.
//!
//! The dates stand in the database when `keys rotate assertions` has ended, with one KEY_ROTATED entry for each algorithm;
//! nobody has to do anything when they come. Every broker reads them every 5 s, and at once on SIGHUP, so all change keys at
//! the same moment, as far as their clocks agree (5 s). A broker that has not read them for 60 s signs nothing. The private
//! half of a retired key is deleted a minute after its last signature. A second rotation waits until the first one's key
//! signs. The first keys of a new store sign at once: nobody knows the issuer yet.
//!
//! No cloud says how long it keeps an issuer's keys. Trials of others found up to ten minutes; a verifier that is offline, or
//! has the keys typed in (`jwksJson` of Google Cloud), needs as much lead time as somebody takes to bring it the new set.
//!
//! `keys rotate assertions --compromised` is for a key that somebody else may have: all keys before are removed at once, the
//! new one signs within seconds. Verifiers refuse the new key until they read the set again, and accept the old one for as
//! long as they keep it; until then only the cloud itself can deny.

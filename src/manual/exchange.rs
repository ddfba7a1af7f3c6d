//! # The exchange
//!
//! One request, nine steps, and what each proves to the next. A step takes what the step before made, by value, and
//! nothing else can make it; so none can be skipped, repeated or reordered.
//!
//! | step | takes | makes | where |
//! |---|---|---|---|
//! | issuer, keys | the bearer text | [`RawToken`](crate::kernel::identity::token::RawToken) and a key | [`broker::identify`](crate::broker::identify) |
//! | verify | both | [`VerifiedToken`](crate::kernel::identity::verify::VerifiedToken) | [`kernel::identity::verify`](crate::kernel::identity::verify) |
//! | identity | it | [`JobIdentity`](crate::kernel::identity::JobIdentity), as a [`Caller`](crate::broker::identify::Caller) | the same |
//! | decide | it, the policy snapshot, the request, the time | [`Permit`](crate::kernel::policy::Permit) or [`Denial`](crate::kernel::policy::Denial) | [`kernel::policy::decide`](crate::kernel::policy::decide) |
//! | fetch | the permit | [`Minted`](crate::broker::ports::Minted), in memory | `adapters::mint` |
//! | intent and record | both | receipts, durable | [`Store::issue`](crate::broker::ports::Store::issue) |
//! | respond | receipts and secrets | bytes, then nothing | `http` |
//!
//! ## One durable step
//!
//! A sealed secret and an assertion of our own change nothing elsewhere when they are made. So the fetch comes first,
//! and ONE transaction then looks at freezes and the idempotency key, claims the once-keys, writes the rows and appends INTENT and
//! ISSUED. Its verdict wins over a fetch that failed: a replay is a replay, also where the secret is missing. A failed
//! fetch is INTENT and FAILED in one transaction that claims nothing.
//!
//! The fetch reads sealed secrets from memory, with a generation number. The transaction compares it: where another
//! process set or removed a secret meanwhile, the fetch is done again. So no row is read per secret, and none that was
//! removed is ever delivered.
//!
//! ## Detached
//!
//! From the decision on, the exchange is a tracked task. A client that hangs up does not stop it; its answer then has
//! nowhere to go, and UNDELIVERED is recorded. The same holds when the last byte could not be flushed. What is
//! delivered means: handed to the transport; a peer that vanishes after that is beyond anybody's knowledge.
//!
//! ## Once
//!
//! The once-key is (issuer, token id, grant, credential, use). The token id is `jti` where the issuer has one, else a
//! digest of the signed bytes; never of the whole text, since a signature can be spelled in two ways. It is no
//! function of the token's times: two tokens with one `jti` are one token to us.
//!
//! A grant may give a token more than one use (`uses_per_token`, for CI systems that mint one token a job). A call takes
//! the lowest free use of each of its credentials within the transaction, so that no race is ever a false refusal; a
//! retry under its key keeps the uses that it has.
//!
//! ## Freezes
//!
//! A freeze (`hallpass freeze issuer|kid|grant|project|all`) is a row that this transaction looks for first, so that it
//! holds from its commit on every broker of the store: after FROZEN no ISSUED of what it names follows until THAWED, and
//! no broker was told. Who is frozen is answered as if policy said no, and its entry says `frozen`; it does not count
//! among the five denials of a token, and claims nothing, so that a job goes on with the same token once it is thawed.
//! A dry run looks too, `/v1/grants` leaves out what is frozen, and `whoami`, `grants` and reading an issuance by a
//! token are refused where issuer, key or everything is frozen. Giving back and revoking never are.
//!
//! A key is frozen by issuer and `kid`, and by its RFC 7638 thumbprint: that is what the issuer publishes when the
//! command runs, or what the broker holds that is asked over the admin API. Where neither knows such a key, the freeze
//! holds by the name at once, and the first broker that holds a key of that name adds its thumbprint within ten
//! seconds, with a second FROZEN. A thumbprint holds under any name and at any issuer: whoever has the key can sign for
//! each of them. Thawing one name leaves a freeze of the same key under another.
//!
//! ## Limits
//!
//! `issuances_per_hour` counts intents in rows of one minute, of which the last 60 count: an intent of 10:00:59 counts
//! until 11:00:00. A failed fetch and a retry under its key count nothing. `live` counts issuance rows that are not
//! static, from the moment that they are issued until they are revoked, else until their end: one that was given back,
//! and that nobody can revoke, is usable and counts. So does a retry's, beside the first. A limit counts what lives
//! already when it is added; an hour begins with it.
//!
//! Both are looked at in the transaction that issues, after idempotency and replay. A call that would pass one gets
//! nothing and takes nothing, all its grants together: 429 `quota_exceeded`, with the seconds until there is room for
//! all that it asked for. It is recorded as DENIED with the limit that it met; it is no denial that spends a token.
//!
//! ## In OAuth's words
//!
//! `POST /v1/token` is the same exchange for clients that speak RFC 8693: `audience` is the grant, `scope` the
//! credential, the CI token is `subject_token`. Its answer has room for one secret. So a permit for several credentials,
//! or for one that has not exactly one secret field, is `invalid_target` as if there were no permit: how many a grant
//! has is policy. It claims nothing, and counts against the token like any denial. `issued_token_type` says what came: a
//! JWT, or `urn:hallpass:token-type:secret`; neither is an access token, so `token_type` is `N_A`.
//!
//! Parameters that are not ours are ignored, as RFC 6749 section 3.2 wants; those that would change the meaning
//! (`resource`, `actor_token`, a client's own secret) are refused. 404, 405, 413 and 415 are problem documents.
//!
//! ## What a caller learns
//!
//! What is wrong with its own token, and nothing about policy. All that policy does not permit is one `access_denied`,
//! equal but for `decision_id`, after the same evaluation, and after a real commit.

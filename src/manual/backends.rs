//! # Backends
//!
//! `backends` in `hallpass.yaml` names the connections that mint credentials elsewhere. Policies name them; where only one
//! of a kind is configured, they need not. A backend that does not answer fails its own grants in bounded time, and
//! nothing else: `serve` starts without it, `/readyz` stays green, `hallpass doctor` says what is the matter.
//!
//! ## `vault`
//!
//! HashiCorp Vault, or OpenBao, which speaks the same API.
//!
//! | key | means | without it |
//! |---|---|---|
//! | `address` | its https address, or a list with one for each node of a cluster; a path in front of `/v1/` is a proxy's. `http` is for a literal loopback address only | due |
//! | `namespace` | the namespace of every request | none |
//! | `ca_file` | the only authorities trusted for it, PEM | the system's |
//! | `client_certificate` | `{ certificate, key }`, PEM; read again within a second of a change | none is shown |
//! | `token_role` | the token role of job tokens: `auth/token/create/ROLE`; `orphan=true`, `token_type=service` | no leased kinds |
//! | `timeout` | of one call, tries included: 1s to 60s | 10s |
//! | `auth` | how the broker logs in: exactly one of the methods below | due |
//!
//! | method | keys | |
//! |---|---|---|
//! | `approle` | `role_id_file`, `secret_id_file`, `wrapped`, `mount` | with `wrapped: true` the file holds a wrapping token; its creation path must be the role's own `secret-id` |
//! | `cert` | `role`, `mount` | by `client_certificate` |
//! | `jwt` | `role`, `token_file`, `mount` | |
//! | `kubernetes` | `role`, `token_file`, `mount` | the pod's own token, where no file is named |
//! | `token` | `file` | of an agent's sink; a change is taken within a second |
//!
//! Files are read anew at each login. A token is renewed at two thirds of its life; one that cannot be is replaced by a
//! new login. A root token is refused. At the start, and by `doctor`, the token's rights are compared with what the broker
//! needs; what is missing is named, and what no broker needs is warned of.
//!
//! A redirect is followed only to another configured address, and with the path as it was asked for. What was certainly
//! not done is asked again: no connection, 412 for up to two seconds, 429 as `Retry-After` says and three times at most,
//! 503 at another node. A read is asked again twice after 500, 502 or a broken connection; what makes something never is.
//! After five failures in a row a backend is left alone for one second, then two, up to fifteen.
//!
//! Quotas of Vault count by client address, and all jobs share the broker's: raise them for its paths.
//!
//! ## `aws`
//!
//! AWS STS. Roles are assumed with an assertion that Hallpass signs itself, so that there is no key of AWS anywhere; AWS
//! fetches the keys for it at `assertions.issuer`. `examples/aws/` has provider, role and grant.
//!
//! | key | means | without it |
//! |---|---|---|
//! | `region` | whose STS is asked; the global host never is | due |
//! | `fips` | whether the region's FIPS host is asked; not every region has one | no |
//! | `endpoint` | another address of STS, such as a VPC endpoint | the region's |
//! | `ca_file` | the only authorities trusted for it, PEM | the system's |
//! | `audience` | `aud` of the assertions, a client id of the OIDC provider in AWS | `sts.amazonaws.com` |
//! | `credentials` | `ambient`: roles are assumed with what AWS's own chain finds around the broker (environment, shared files, container or instance role) | by assertion |
//! | `external_id` | what the trust policy asks for as `sts:ExternalId`; only with `credentials` | none |
//! | `timeout` | of one try: 1s to 30s | 3s |
//!
//! The session's name and source identity are the issuance's id, so a trust policy allows `sts:TagSession` and
//! `sts:SetSourceIdentity` beside the call itself. The job gets `access_key_id`, `secret_access_key` and `session_token`.
//! Nobody can end a session: giving it back says until when it works and what an operator can do.
//!
//! `hallpass doctor` says which host is asked and whether an STS answers there, compares clocks, tries the credentials
//! around the broker (`GetCallerIdentity`), fetches discovery and keys at `assertions.issuer` and looks for the key that
//! signs, and names roles of another partition than the region's. Run it as the broker's user, in its environment.
//!
//! | AWS says | the ledger says | tried again |
//! |---|---|---|
//! | `AccessDenied` | `access-denied`: the trust policy, or the role's name | no |
//! | `InvalidIdentityToken` | `assertion-refused`: the provider, its audience, or keys that AWS has not seen | once, with a new assertion |
//! | `ExpiredTokenException` | `assertion-expired`: a clock is off | once, with a new assertion |
//! | `IDPCommunicationError` | `issuer-not-reached`: AWS could not fetch the keys | twice |
//! | `IDPRejectedClaim` | `claim-rejected` | no |
//! | `MalformedPolicyDocument`, `PackedPolicyTooLarge` | `session-policy-malformed`, `session-policy-too-large` | no |
//! | `RegionDisabledException`, `ValidationError` | `region-disabled`, `request-refused` | no |
//! | throttling, 503, no connection | `throttled`, `backend-unavailable`, `backend-unreachable` | twice |
//! | 500, 502, 504, a broken answer, silence | `backend-error`, `answer-lost`, a timeout: UNRESOLVED, since a session may stand somewhere | twice |
//! | 200 with no session in it | `answer-malformed`, `answer-without-credentials`: UNRESOLVED | no |

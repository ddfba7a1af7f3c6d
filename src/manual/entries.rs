//! # Entries of the ledger
//!
//! Every entry has `v` (1), `code`, `at`, `salt` and `replica`. A member that has nothing to say is absent.
//!
//! | code | when | members beside the common ones |
//! |---|---|---|
//! | `ALERT_POLICY_REJECTED` | a policy set was refused; the one before stays | as `POLICY_REJECTED` |
//! | `ALERT_POLICY_SKEW` | living brokers have decided by different policy sets for more than a minute; once until they agree | `result {since, sets}`, a list of `{digest, replicas}` |
//! | `ALERT_REVOCATION` | a revoke is not confirmed although the credential's time is over; once an issuance, and it is tried on | `decision`, `issuance`, `policy {grant}`, `request {credential}`, `result {kind, reason, tries, usable_until}` |
//! | `ALERT_ROLLBACK` | the database is behind, or beside, a head that was seen | `result {seen, found}` |
//! | `CONFIG_LOADED` | a broker read its configuration | `result {digest, url, issuers, admin_tokens}` |
//! | `DENIED` | a request was refused, once a decision or an authentic token | `decision`, `subject`, `policy {digest, commit}`, `request {id, grants}`, `result {code, reason, tried, breaches}`, `token`, `commitments`; where a freeze holds the reason is `frozen`, and `result` has `freeze {scope, issuer, grant, kid, project}`; over a limit `policy` has `grant, rule, file` too, and `result` has `limit {grant, name, per, allowed, used, asked, room_at}` |
//! | `DRY_RUN` | a dry run was decided | as `DENIED`, `result {would_issue}` |
//! | `EXPORTED` | somebody exported the ledger, or made a backup | `result {reader, size}`, with `what` where it is a backup |
//! | `FAILED` | a credential could not be made, or was discarded | `decision`, `issuance`, `subject`, `policy {digest, commit, grant}`, `request {id, credential}`, `result {code, reason, minted, usable_until}`, the last where it was made and nobody can take it back, `token`; without `subject` and `token`, `request {credential, by}`, where recovery closed it |
//! | `FROZEN` | somebody froze, and it holds from this entry on; a second one of a `kid` adds the thumbprints that were not known at first | `result {by, scope, issuer, grant, kid, project, thumbprints}`, `commitments {reason}` |
//! | `INTENT` | a credential is about to be issued | `decision`, `issuance`, `subject`, `policy {digest, commit, grant, rule, file, class}`, `request {id, grants, credential, kind, target, ttl_seconds}`, `result {would_deny}`, `token`, `commitments` |
//! | `ISSUED` | its record, durable before a byte of it leaves | `decision`, `issuance`, `subject`, `policy {digest, commit, grant}`, `request {id, credential}`, `result {kind, lifetime, issued_at, expires_at, revocable, told}`, `token`, `commitments` |
//! | `KEY_ROTATED` | a key was changed | of the ledger: `result {by, key, version, old, new, checkpoint}`, the verifier keys and the checkpoint by which the old one hands over; of assertions: `result {by, key, algorithm, version, kid, published_at, active_at, before [{version, kid, retired_at, removed_at}], compromised}`, with dates that lie ahead, and no other entry when they come; of sealing: `result {by, key, old, new, records}`, the beginnings of the keys' checks and how many records are under the new one then |
//! | `POLICY_ACCEPTED` | an operator lets a policy set in although it lacks what the one before had | `result {by, digest, until}` |
//! | `POLICY_LOADED` | a policy set decides from now on | `result {digest, commit, issuers, guardrails, grants, lost}`, `lost` where it was let in without them |
//! | `POLICY_REJECTED` | a policy set was refused | `result {digest, commit, findings, first}`, with `lost` and `command` where it lacks guardrails or issuers |
//! | `READ` | somebody read the ledger: once a query, once a reader and hour for single entries | `result {reader, what}`, `commitments {query}` |
//! | `RELEASED` | a job gave back, or an operator revoked, what nobody can revoke | `decision`, `issuance`, `policy {grant}`, `request {credential, by}` (handle, token or operator), `result {usable_until, remedy}`, the last where an operator can do something about it; of an operator `result {by}` too, and `commitments {reason}` |
//! | `RESTORED` | an operator goes on from an older state of the database | `result {by, lost {size, root, checkpoint}, resumed {size, root}}`, `lost` null where no later head is known; `commitments {reason}` |
//! | `REVOKED` | its backend confirmed that nothing usable is left | `decision`, `issuance`, `policy {grant}`, `request {credential}`, `result {kind, tries}` |
//! | `REVOKING` | the same of what its backend can revoke, which is asked from now on | as `RELEASED`; `by` is also `retry` (a call repeated under its key), `undelivered`, `exchange` or `recovery` |
//! | `SECRET_REMOVED` | a sealed secret was removed | `result {by, secret, version}` |
//! | `SECRET_SET` | a sealed secret was set | `result {by, secret, version, fields}`, the fields' names |
//! | `STARTED` | a broker serves from now on | `result {version, rollback}`, guarded or unguarded |
//! | `STOPPED` | a broker ended in order | `result {drained}` |
//! | `SUMMARY` | refusals of a minute that are no entries of their own | `result {of, issuer, project, count, first, last, sample}` |
//! | `THAWED` | somebody ended a freeze | as `FROZEN` without thumbprints |
//! | `UNDELIVERED` | the answer could not be written to the job | as `ISSUED`, `result {usable_until}` |
//! | `UNRESOLVED` | nobody knows whether it was made, or that it is gone | as `FAILED`, `result {reason, usable_until}` |
//!
//! `subject` is `{issuer, profile, tenant, project, project_name, ref, trigger, definition, environment, runner, run,
//! unusable, claims}`; `claims` holds every claim that the profile marks usable and that has the profile's type.
//! `token` is `{issuer, id_hmac, iat, exp}`: the id is a pseudonym under a key of this ledger.
//!
//! `tried` is a list of `{grant, rule, failed}`, the names of the claims that failed. `breaches` is what guardrails
//! refused, `would_deny` what guardrails in `mode: report` would have refused of a credential that was issued, and only
//! stands where there is some: a list of `{grant, credential, guardrail, requirement}`. Of all this a job learns
//! nothing but the names of claims that failed, and those only where its grant says `disclose: owner`.
//!
//! **Personal values** (logins, source addresses, a request's reason, the text of a query) are not in the entry. In
//! their place stands a commitment; value and blinding bytes stand in a table from which they can be erased.

#[cfg(test)]
mod tests {
    use crate::kernel::ledger::entry::EntryCode;

    #[test]
    fn every_code_stands_in_the_table() {
        let page = include_str!("entries.rs");
        for code in EntryCode::ALL {
            let row = format!("//! | `{}` |", code.as_str());
            assert_eq!(page.matches(&row).count(), 1, "{}", code.as_str());
        }
    }
}

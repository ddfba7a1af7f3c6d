-- The second schema: limits of grants, and letting in a policy set that lacks what the one before had. It only adds:
-- a process of the version before goes on writing beside it. It runs within the transaction that raises the version.

-- Whose a row is, for `per: project`; NULL where the profile knows no projects, and in rows of the first schema.
ALTER TABLE issuance ADD COLUMN project TEXT;
-- Until when a row counts as live: its end, or where nobody knows it yet `recover_after` and its TTL. NULL where
-- static, and then it stands in no index: the commonest row costs nothing more. Whoever learns of another end
-- (`usable_until`) sets it too.
ALTER TABLE issuance ADD COLUMN live_until INTEGER;
UPDATE issuance SET live_until = coalesce(usable_until, expires_at) WHERE lifetime <> 'static';
CREATE INDEX issuance_by_end ON issuance (grant_name, live_until, issuer, project) WHERE live_until IS NOT NULL;

-- Intents of grants with a limit by the hour, by the minute since 1970. Where the limit is the grant's, issuer and
-- project are empty texts; no issuer has such a name.
CREATE TABLE intent_count (
    grant_name TEXT NOT NULL,
    issuer TEXT NOT NULL,
    project TEXT NOT NULL,
    minute INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (grant_name, issuer, project, minute)
) STRICT, WITHOUT ROWID;
CREATE INDEX intent_count_by_minute ON intent_count (minute);

-- Sets that an operator lets in although they lack a guardrail or an issuer.
CREATE TABLE policy_let_in (
    digest BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

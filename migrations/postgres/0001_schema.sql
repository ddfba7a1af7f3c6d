-- The first schema on PostgreSQL: the same tables as SQLite's second, in a schema of their own. Moments are nanoseconds
-- since 1970 UTC; digests and ids are their bytes. It runs within the transaction that creates the schema, as the role
-- that shall own it. Later ones only add: brokers of the version before go on writing beside them.

CREATE SCHEMA hallpass;
SET LOCAL search_path = hallpass;

-- Facts about the database itself. `sealing_check` tells a wrong sealing key before anything is touched, `schema` the
-- number of the newest migration.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

-- Keys that Hallpass made for itself, sealed under the sealing key.
CREATE TABLE keys (
    purpose TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    made_at BIGINT NOT NULL
);

-- The signed tree head: one row, changed by compare-and-swap on size and root. It is the lock of every batch, too, so
-- it holds what each batch must know of the others': the generation of the sealed store, and how many tokens had
-- their last denial.
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    peaks BYTEA NOT NULL,
    note TEXT NOT NULL,
    generation BIGINT NOT NULL,
    spent BIGINT NOT NULL
) WITH (fillfactor = 50);

-- The ledger. The other columns repeat what the entry's bytes say, for queries only: the bytes are what is hashed.
CREATE TABLE entry (
    idx BIGINT PRIMARY KEY,
    leaf BYTEA NOT NULL,
    code TEXT NOT NULL,
    at BIGINT NOT NULL,
    decision BYTEA,
    issuance BYTEA,
    issuer TEXT,
    grants TEXT,
    bytes BYTEA NOT NULL
);

-- Roots of full subtrees of 256^k leaves (level 8k), so that a proof reads few rows.
CREATE TABLE subtree (
    level SMALLINT NOT NULL,
    idx BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (level, idx)
);

-- Personal values, erasable with the bytes that blind their commitment.
CREATE TABLE personal (
    idx BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    field TEXT NOT NULL,
    blinding BYTEA NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (idx, ordinal)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is insert-only' USING ERRCODE = 'insufficient_privilege';
END $$;

-- One look a statement, and not one a row: a batch is one statement.
CREATE FUNCTION refuse_gap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    first BIGINT;
    last BIGINT;
    fresh_rows BIGINT;
BEGIN
    SELECT min(idx), max(idx), count(*) INTO first, last, fresh_rows FROM fresh;
    IF fresh_rows > 0 AND (
        last - first + 1 <> fresh_rows
        OR first <> (SELECT coalesce(max(idx) + 1, 0) FROM hallpass.entry WHERE idx < first)
        OR last <> (SELECT max(idx) FROM hallpass.entry)
    ) THEN
        RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entry_is_appended AFTER INSERT ON entry
REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION refuse_gap();
CREATE TRIGGER subtree_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON subtree
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER head_is_never_deleted BEFORE DELETE OR TRUNCATE ON head
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Issuances by UUIDv7, so that new rows stand side by side. `live_until` is until when a row counts as live: its end,
-- or where nobody knows it yet `recover_after` and its TTL; NULL where static.
CREATE TABLE issuance (
    id BYTEA PRIMARY KEY,
    decision BYTEA NOT NULL,
    grant_name TEXT NOT NULL,
    credential TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    handle BYTEA NOT NULL,
    issuer TEXT NOT NULL,
    token BYTEA NOT NULL,
    job BYTEA,
    lifetime TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT,
    usable_until BIGINT,
    revocable BOOLEAN NOT NULL,
    owner BYTEA NOT NULL,
    recover_after BIGINT NOT NULL,
    project TEXT,
    live_until BIGINT
);
CREATE INDEX issuance_by_end ON issuance (grant_name, live_until, issuer, project) WHERE live_until IS NOT NULL;

-- Once-claims. `chain` is the first decision of the calls that may share them: a call and its keyed retries.
CREATE TABLE once (
    key BYTEA PRIMARY KEY,
    expires BIGINT NOT NULL,
    chain BYTEA NOT NULL
);
CREATE INDEX once_by_expiry ON once (expires);

-- Idempotency keys. `issuances` are the ids, 16 bytes each, of all that the chain issued.
CREATE TABLE idempotency (
    key BYTEA PRIMARY KEY,
    body BYTEA NOT NULL,
    chain BYTEA NOT NULL,
    retries BIGINT NOT NULL,
    issuances BYTEA NOT NULL,
    valid_until BIGINT NOT NULL
);

-- Denials and replays by token. `spent` numbers those that had their last one, in the order in which they had it.
CREATE TABLE denied (
    token BYTEA PRIMARY KEY,
    count BIGINT NOT NULL,
    until BIGINT NOT NULL,
    spent BIGINT
);
CREATE INDEX denied_by_spent ON denied (spent) WHERE spent IS NOT NULL;

-- Refusals that are counted instead of recorded one by one. New ones count in slot 0; a sweep moves them to a slot
-- of its own, and from there each becomes an entry. An issuer that is unknown is the empty text.
CREATE TABLE summary (
    slot BIGINT NOT NULL,
    kind TEXT NOT NULL,
    issuer TEXT NOT NULL,
    project TEXT NOT NULL,
    count BIGINT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    samples TEXT NOT NULL,
    PRIMARY KEY (slot, kind, issuer, project)
);

-- Sealed secrets. A removed one keeps its row without `sealed`, so that a version is never used twice.
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    sealed BYTEA,
    fields BIGINT NOT NULL,
    set_at BIGINT NOT NULL
);

-- Policy sets that were accepted; the newest guards against lost guardrails and issuers.
CREATE TABLE policy_accepted (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL,
    names TEXT NOT NULL,
    at BIGINT NOT NULL
);

-- Sets that an operator lets in although they lack a guardrail or an issuer.
CREATE TABLE policy_let_in (
    digest BYTEA PRIMARY KEY,
    until BIGINT NOT NULL
);

-- Intents of grants with a limit by the hour, by the minute since 1970. Where the limit is the grant's, issuer and
-- project are empty texts; no issuer has such a name.
CREATE TABLE intent_count (
    grant_name TEXT NOT NULL,
    issuer TEXT NOT NULL,
    project TEXT NOT NULL,
    minute BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (grant_name, issuer, project, minute)
);
CREATE INDEX intent_count_by_minute ON intent_count (minute);

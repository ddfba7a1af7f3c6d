-- The first schema: the ledger, issuance rows, once-claims, sealed secrets and keys. All of it changes in one
-- transaction or not at all. Moments are nanoseconds since 1970 UTC; digests and ids are their bytes.
-- It runs within the transaction that creates the database.

-- Facts about the database itself. `sealing_check` tells a wrong sealing key before anything is touched.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys that Hallpass made for itself, sealed under the sealing key.
CREATE TABLE keys (
    purpose TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The signed tree head: one row, changed by compare-and-swap on size and root.
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    peaks BLOB NOT NULL,
    note TEXT NOT NULL
) STRICT;

-- The ledger. `leaf` stands before `bytes`, so that proofs do not read overflow pages. The other columns repeat
-- what the entry's bytes say, for queries only: the bytes are what is hashed.
CREATE TABLE entry (
    idx INTEGER PRIMARY KEY,
    leaf BLOB NOT NULL,
    code TEXT NOT NULL,
    at INTEGER NOT NULL,
    decision BLOB,
    issuance BLOB,
    issuer TEXT,
    grants TEXT,
    bytes BLOB NOT NULL
) STRICT;

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is insert-only'); END;
CREATE TRIGGER entry_is_never_deleted BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is insert-only'); END;
-- Also stops INSERT OR REPLACE, which deletes without asking the trigger above.
CREATE TRIGGER entry_is_appended BEFORE INSERT ON entry
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM entry)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- Roots of full subtrees of 256^k leaves (level 8k), so that a proof reads few rows.
CREATE TABLE subtree (
    level INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER subtree_is_never_changed BEFORE UPDATE ON subtree
BEGIN SELECT RAISE(ABORT, 'the ledger is insert-only'); END;
CREATE TRIGGER subtree_is_never_deleted BEFORE DELETE ON subtree
BEGIN SELECT RAISE(ABORT, 'the ledger is insert-only'); END;

-- Personal values, erasable with the bytes that blind their commitment.
CREATE TABLE personal (
    idx INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    field TEXT NOT NULL,
    blinding BLOB NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (idx, ordinal)
) STRICT, WITHOUT ROWID;

-- Issuances by UUIDv7, so that new rows stand side by side.
CREATE TABLE issuance (
    id BLOB PRIMARY KEY,
    decision BLOB NOT NULL,
    grant_name TEXT NOT NULL,
    credential TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    handle BLOB NOT NULL,
    issuer TEXT NOT NULL,
    token BLOB NOT NULL,
    job BLOB,
    lifetime TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER,
    usable_until INTEGER,
    revocable INTEGER NOT NULL,
    owner BLOB NOT NULL,
    recover_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Once-claims. `chain` is the first decision of the calls that may share them: a call and its keyed retries.
CREATE TABLE once (
    key BLOB PRIMARY KEY,
    expires INTEGER NOT NULL,
    chain BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX once_by_expiry ON once (expires);

-- Idempotency keys. `issuances` are the ids, 16 bytes each, of all that the chain issued.
CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    chain BLOB NOT NULL,
    retries INTEGER NOT NULL,
    issuances BLOB NOT NULL,
    valid_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Denials and replays by token.
CREATE TABLE denied (
    token BLOB PRIMARY KEY,
    count INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Refusals that are counted instead of recorded one by one. New ones count in slot 0; a sweep moves them to a slot
-- of its own, and from there each becomes an entry. An issuer that is unknown is the empty text.
CREATE TABLE summary (
    slot INTEGER NOT NULL,
    kind TEXT NOT NULL,
    issuer TEXT NOT NULL,
    project TEXT NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    samples TEXT NOT NULL,
    PRIMARY KEY (slot, kind, issuer, project)
) STRICT, WITHOUT ROWID;

-- Sealed secrets. A removed one keeps its row without `sealed`, so that a version is never used twice. Each change
-- raises one version by one: the sum of all is the generation of the store.
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB,
    fields INTEGER NOT NULL,
    set_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Policy sets that were accepted; the newest guards against lost guardrails and issuers.
CREATE TABLE policy_accepted (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    names TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

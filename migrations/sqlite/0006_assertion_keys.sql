-- Keys of assertions with their dates. It only adds: a process of the version before goes on signing with the first key,
-- until that is rotated; who upgrades ends that version before rotating. It runs within the transaction that raises the
-- version.

-- Which key signs when, for all brokers: the state of a key is a function of these dates and the time. The private half
-- stands in `keys` under `purpose`, sealed, and is deleted once it has signed its last; `public` is the JWK, NULL of a
-- first key until it is rotated, since it follows from the private half. Rows stay, so that no number is used twice.
CREATE TABLE assertion_key (
    algorithm TEXT NOT NULL,
    version INTEGER NOT NULL,
    purpose TEXT NOT NULL UNIQUE,
    public TEXT,
    published_at INTEGER NOT NULL,
    active_at INTEGER NOT NULL,
    retired_at INTEGER,
    removed_at INTEGER,
    PRIMARY KEY (algorithm, version)
) STRICT, WITHOUT ROWID;

INSERT INTO assertion_key (algorithm, version, purpose, published_at, active_at)
SELECT 'RS256', version, purpose, made_at, made_at FROM keys WHERE purpose = 'assertion';

-- Keys of assertions with their dates. It only adds: a broker of the version before goes on signing with the first key,
-- until that is rotated; who upgrades ends that version before rotating. It runs within the transaction that raises the
-- version, as the schema's owner.

SET LOCAL search_path = hallpass;

SET LOCAL search_path = hallpass;

-- Which key signs when, for all brokers: the state of a key is a function of these dates and the time. The private half
-- stands in `keys` under `purpose`, sealed, and is deleted once it has signed its last; `public` is the JWK, NULL of a
-- first key until it is rotated, since it follows from the private half. Rows stay, so that no number is used twice.
CREATE TABLE assertion_key (
    algorithm TEXT NOT NULL,
    version BIGINT NOT NULL,
    purpose TEXT NOT NULL UNIQUE,
    public TEXT,
    published_at BIGINT NOT NULL,
    active_at BIGINT NOT NULL,
    retired_at BIGINT,
    removed_at BIGINT,
    PRIMARY KEY (algorithm, version)
);

INSERT INTO assertion_key (algorithm, version, purpose, published_at, active_at)
SELECT 'RS256', version, purpose, made_at, made_at FROM keys WHERE purpose = 'assertion';

-- The writer may delete keys of assertions that have signed their last, and no other key.
CREATE FUNCTION refuse_key_loss() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the key of % is never deleted', OLD.purpose;
END $$;
CREATE TRIGGER keys_of_the_store_stay BEFORE DELETE ON keys
    FOR EACH ROW WHEN (OLD.purpose IN ('ledger', 'pseudonym')) EXECUTE FUNCTION refuse_key_loss();

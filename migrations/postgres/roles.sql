-- What the two roles beside the owner may do. `hallpass store init` and `hallpass store grant` run it as the owner, with
-- the roles' names in `hallpass.writer` and `hallpass.reader`; an empty name is nobody. Running it again changes nothing.
--
-- The writer (`store.url` of the brokers) appends to the ledger and can change or delete nothing in it: neither privilege
-- nor trigger lets it. The reader sees what an auditor sees, and no key, secret or issuance.
DO $$
DECLARE
    writer TEXT := nullif(current_setting('hallpass.writer', true), '');
    reader TEXT := nullif(current_setting('hallpass.reader', true), '');
BEGIN
    -- Nobody needs tables for a session here, and they come first on a search path. Only who owns the database can say so.
    IF (SELECT pg_has_role(current_user, datdba, 'USAGE')
        FROM pg_catalog.pg_database WHERE datname = current_database()) THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF writer IS NOT NULL AND writer <> current_user THEN
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA hallpass FROM %I', writer);
        EXECUTE format('GRANT USAGE ON SCHEMA hallpass TO %I', writer);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA hallpass TO %I', writer);
        EXECUTE format('GRANT INSERT ON hallpass.entry, hallpass.subtree, hallpass.personal,
            hallpass.policy_accepted TO %I', writer);
        EXECUTE format('GRANT UPDATE (size, root, peaks, note, generation, spent, signer)
            ON hallpass.head TO %I', writer);
        EXECUTE format('GRANT UPDATE ON hallpass.publication TO %I', writer);
        EXECUTE format('GRANT INSERT, UPDATE ON hallpass.issuance, hallpass.secret TO %I', writer);
        EXECUTE format('GRANT INSERT, UPDATE ON hallpass.assertion_key TO %I', writer);
        -- Keys of assertions come and go, the ledger's is followed by another, and all are wrapped anew; triggers keep
        -- whatever else there is, but cannot tell a wrap that opens from one that does not.
        EXECUTE format('GRANT INSERT, DELETE ON hallpass.keys TO %I', writer);
        EXECUTE format('GRANT UPDATE (version, sealed, made_at) ON hallpass.keys TO %I', writer);
        -- Which key is the ledger's and which one seals; a trigger keeps all other facts.
        EXECUTE format('GRANT INSERT, UPDATE ON hallpass.meta TO %I', writer);
        EXECUTE format('GRANT INSERT, UPDATE, DELETE ON hallpass.once, hallpass.idempotency, hallpass.denied,
            hallpass.summary, hallpass.policy_let_in, hallpass.intent_count, hallpass.freeze, hallpass.frozen_key,
            hallpass.replica, hallpass.policy_skew TO %I', writer);
    END IF;
    IF reader IS NOT NULL AND reader <> current_user THEN
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA hallpass FROM %I', reader);
        EXECUTE format('GRANT USAGE ON SCHEMA hallpass TO %I', reader);
        EXECUTE format('GRANT SELECT ON hallpass.entry, hallpass.subtree, hallpass.personal, hallpass.head,
            hallpass.meta TO %I', reader);
    END IF;
END $$;

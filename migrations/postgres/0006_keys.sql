-- Other keys in the place of the ledger's and of the sealing key, while brokers serve. It only adds: a broker of the
-- version before goes on writing beside it until the ledger's key is first changed; then nothing that it signs with the old
-- one becomes a head. It runs within the transaction that raises the version, as the schema's owner.

SET LOCAL search_path = hallpass;

-- How the line of the ledger's key begins in each note that it signs; NULL before the first change. Whoever appends finds
-- here, under the head's lock, which key that is, and a note without its signature is no head: so a broker that was paused,
-- or knows no other key, ends with the change and not some time after it.
ALTER TABLE head ADD COLUMN signer TEXT;
ALTER TABLE head ADD CONSTRAINT head_is_signed_by_the_ledgers_key
    CHECK (signer IS NULL OR strpos(note, E'\n' || signer) > 0);

-- Which sealing keys a broker knows, 32 bytes each that tell one; NULL of one that never says so.
ALTER TABLE replica ADD COLUMN sealing BYTEA;

-- A trigger runs as whoever writes, on that one's search path: a table of its own for the session, or an operator in a
-- schema of its own, would stand in for the catalog's. So what a trigger looks up it looks up in the catalog.
ALTER FUNCTION refuse_gap() SET search_path = pg_catalog, pg_temp;

-- The writer may change these facts, and none of the others.
CREATE FUNCTION refuse_fact() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role(current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID), 'USAGE')
        AND (NEW.name NOT IN ('ledger_key', 'ledger_keys_past', 'sealing_check', 'sealing_next')
            OR (TG_OP = 'UPDATE' AND NEW.name <> OLD.name)) THEN
        RAISE EXCEPTION 'the fact % is the owner''s', NEW.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER facts_of_the_owner_stay BEFORE INSERT OR UPDATE ON meta
    FOR EACH ROW EXECUTE FUNCTION refuse_fact();

-- A key keeps its purpose; only the ledger's is followed by another under its name, and the number never goes back. While
-- the number stays, only the wrap changes: 60 bytes behind the format's one. Whoever is the writer can still put a wrap
-- there that nothing opens, or let the ledger's key be followed by such a one. Then no broker starts, and the bytes of a
-- backup are needed: the first, since its content stayed, only for their wrap.
CREATE FUNCTION refuse_key_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the key of % cannot become another', OLD.purpose USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER keys_become_no_others BEFORE UPDATE ON keys
    FOR EACH ROW WHEN (
        NEW.purpose <> OLD.purpose
        OR (NEW.version <> OLD.version AND (OLD.purpose <> 'ledger' OR NEW.version <> OLD.version + 1))
        OR (NEW.version = OLD.version AND (
            length(NEW.sealed) <> length(OLD.sealed)
            OR substr(NEW.sealed, 1, 1) <> substr(OLD.sealed, 1, 1)
            OR substr(NEW.sealed, 62) <> substr(OLD.sealed, 62)
        ))
    ) EXECUTE FUNCTION refuse_key_change();

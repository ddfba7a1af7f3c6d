-- The third schema: exchanges in two steps, with leases. It only adds: a broker of the version before goes on writing
-- beside it; its rows are whole at once, and have nothing of this. It runs within the transaction that raises the
-- version, as the schema's owner.

SET LOCAL search_path = hallpass;

-- What making it changes elsewhere; NULL in rows that were whole at once.
ALTER TABLE issuance ADD COLUMN making TEXT;
-- What revokes it at its backend, sealed; NULL before there is something to revoke.
ALTER TABLE issuance ADD COLUMN held BYTEA;
-- What is given back where its whole decision failed: its use of the token, its place under an idempotency key, its
-- count under a limit by the hour (the scope: grant or project). `chain` is the first decision of the calls that share
-- the use.
ALTER TABLE issuance ADD COLUMN chain BYTEA;
ALTER TABLE issuance ADD COLUMN once BYTEA;
ALTER TABLE issuance ADD COLUMN idempotency BYTEA;
ALTER TABLE issuance ADD COLUMN counted TEXT;
-- Revokes: tries until now, when the next is due, whether it was told that time is over, and whether it was
-- asked for by a broker and by no job or operator: then a keyed retry goes on behind it.
ALTER TABLE issuance ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE issuance ADD COLUMN retry_at BIGINT;
ALTER TABLE issuance ADD COLUMN told BOOLEAN NOT NULL DEFAULT false;
ALTER TABLE issuance ADD COLUMN keeps_chain BOOLEAN NOT NULL DEFAULT false;

-- Rows that somebody has to look after: none of those that are whole at once.
CREATE INDEX issuance_open ON issuance (recover_after) WHERE state = 'intent';
CREATE INDEX issuance_revoking ON issuance (retry_at) WHERE state = 'revoking';
CREATE INDEX issuance_by_decision ON issuance (decision) WHERE making IS NOT NULL;

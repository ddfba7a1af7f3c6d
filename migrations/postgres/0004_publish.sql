-- The fourth schema: who publishes the ledger. It only adds: a broker of the version before goes on writing beside it,
-- and publishes nothing. It runs within the transaction that raises the version, as the schema's owner.

SET LOCAL search_path = hallpass;

-- The duty to publish: which replica has it, until when by the server's clock, and how often it changed hands. The number
-- goes with whatever its holder puts into the directory, so that one that was paused finds that it is not the holder any
-- more.
CREATE TABLE publication (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    holder BYTEA,
    fence BIGINT NOT NULL,
    until BIGINT NOT NULL
);
INSERT INTO publication (one, fence, until) VALUES (1, 0, 0);

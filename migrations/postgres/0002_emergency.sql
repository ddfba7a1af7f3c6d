-- The second schema: freezes, revoking at once all that a job or an operator means, and the policy digests of replicas.
-- It only adds: a broker of the version before goes on writing beside it. It does not know freezes, so who upgrades ends
-- that version before relying on one. It runs within the transaction that raises the version, as the schema's owner.

SET LOCAL search_path = hallpass;

-- Freezes that stand. `issuer` and `name` are empty texts where the scope has none; no issuer or grant has such a name.
CREATE TABLE "freeze" (
    scope TEXT NOT NULL,
    issuer TEXT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    frozen_by TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (scope, issuer, name)
);

-- Frozen keys by RFC 7638 thumbprint, so that a freeze holds under any `kid`. Each row belongs to a `freeze` of the
-- scope `kid`, and goes with it.
CREATE TABLE frozen_key (
    thumbprint BYTEA NOT NULL,
    issuer TEXT NOT NULL,
    kid TEXT NOT NULL,
    PRIMARY KEY (thumbprint, issuer, kid)
);

-- Whose an issuance is: the job's, or the token's where the profile gives no job key.
CREATE INDEX issuance_by_holder ON issuance (coalesce(job, token));

-- Brokers that are alive, with the policy set that decides in each; `digest` is NULL before the first.
CREATE TABLE replica (
    id BYTEA PRIMARY KEY,
    started BIGINT NOT NULL,
    digest BYTEA,
    seen BIGINT NOT NULL
);

-- Since when living brokers decide by different sets, and whether that was told; no row while they agree.
CREATE TABLE policy_skew (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    since BIGINT NOT NULL,
    told BOOLEAN NOT NULL
);

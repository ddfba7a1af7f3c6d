//! The demo's CI job: what GitHub Actions would say of a deploy that the sample policies permit.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The claims of the permitted job, minted now. `iss` is the issuer's to set.
pub(super) fn claims(audience: &str, token_id: &str, now: Timestamp) -> Map<String, Value> {
    let now = now.as_second();
    let claims = json!({
        "jti": token_id, "aud": audience, "iat": now, "nbf": now, "exp": now + LIFE_SECONDS,
        "sub": "repo:acme@4216/payments@701:environment:production",
        "repository": "acme/payments", "repository_id": "701", "repository_visibility": "private",
        "repository_owner": "acme", "repository_owner_id": "4216",
        "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "head_ref": "", "base_ref": "",
        "sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
        "event_name": "push", "environment": "production", "runner_environment": "github-hosted",
        "workflow": "Deploy", "workflow_ref": "acme/payments/.github/workflows/ci.yml@refs/heads/main",
        "workflow_sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
        "job_workflow_ref": "acme/ci/.github/workflows/deploy.yml@refs/tags/v4.2",
        "job_workflow_sha": "27b0e1a44b6bd6c1b4f1a0d3e5ffb6d1f0c1a2b3",
        "run_id": "18412345678", "run_number": "412", "run_attempt": "1", "check_run_id": "52412345678",
        "actor": "alice", "actor_id": "990017",
    });
    match claims {
        Value::Object(claims) => claims,
        // Not reached: the literal above is an object. An empty one is refused by everybody.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// The grant that it asks for.
pub(super) const GRANT: &str = "payments-prod";

/// As GitHub's own tokens: five minutes.
const LIFE_SECONDS: i64 = 300;

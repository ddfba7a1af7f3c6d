//! # Credentials of Vault and AWS
//!
//! A credential of kind `vault` names an engine, which fixes how a path is asked, how long what comes out of it lives,
//! what the job gives and what of the answer is secret:
//!
//! ```yaml
//! credentials:
//!   db:   { vault: { engine: database, path: database/creds/payments-rw }, ttl: 15m }
//!   npm:  { vault: { engine: kv2, path: "kv/data/ci/${claims.repository_id}/npm", version: 3, fields: [token] } }
//!   cert: { vault: { engine: pki, path: pki/sign/ci, parameters: { common_name: ci.example.com } }, ttl: 1h }
//!   door: { vault: { engine: generic, path: custom/token/ci, method: post, lifetime: leased, secret_fields: [token] }, ttl: 5m }
//! ```
//!
//! `backend` may be left out where only one of that kind is configured. `fields` chooses from the answer, and a chosen
//! one that is not there is a fault. `parameters` are the engine's own; names, principals, keys and algorithms stand
//! there and never come from the job, which gives one thing only, under `inputs`: a `csr`, a `public_key`, or as `input`
//! the base64 of a digest.
//!
//! A credential of kind `aws` is a session of a role, 15 minutes to 12 hours:
//!
//! ```yaml
//!   aws: { aws: { role_arn: "arn:aws:iam::123456789012:role/payments-deploy", tags: { repo: "${claims.repository}" },
//!                 session_policy: '{ "Version": "2012-10-17", "Statement": [ … ] }', managed_policies: [ … ] }, ttl: 15m }
//! ```
//!
//! **Templates** `${claims.NAME}` stand in a segment of a Vault path, but not its first, and in the value of a session
//! tag; nowhere else. The claim in a path must be immutable and out of an attacker's reach, for every rule of the grant.
//! They are filled in at the decision: guardrails, `classify` and the ledger see what came out. A value that does not fit
//! (a segment takes `[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}`, a tag AWS's own alphabet up to 256) refuses the exchange with
//! the reason `template`; nothing is encoded or cut. `policy check` warns of a template that could reach outside of a
//! guardrail's `targets`.
//!
//! `*` under "public" means that all of the answer is secret; what an engine adds later is secret, too.
//!
//! `cargo test --lib manual::engines -- --ignored` writes the table anew from
//! [`kernel::policy::engines`](crate::kernel::policy::engines).
//!
#![doc = include_str!("engines.md")]

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::kernel::{
        lifetime::Lifetime,
        policy::{
            engines::{ENGINES, EngineSpec},
            target::Secrecy,
        },
    };

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual/engines.md");

    #[test]
    fn the_table_is_what_the_engines_say() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(page == table(), "run `cargo test --lib manual::engines -- --ignored`");
    }

    #[test]
    #[ignore = "writes the page"]
    fn write_the_table() {
        std::fs::write(PAGE, table()).unwrap();
    }

    fn table() -> String {
        let mut page = "| engine | gives | paths | lifetime | ttl | public | parameters |\n|---|---|---|---|---|---|---|\n".to_owned();
        for spec in ENGINES {
            let EngineSpec { engine, about, .. } = spec;
            let ttl = match engine.lifetime {
                Lifetime::Static => "none".to_owned(),
                Lifetime::Fixed | Lifetime::Leased => {
                    format!("{}s to {}s", engine.ttl_seconds.0, engine.ttl_seconds.1)
                }
            };
            let public = match engine.secrecy {
                Secrecy::AllBut([]) => "*".to_owned(),
                Secrecy::AllBut(public) => words(public, &[]),
                Secrecy::Declared => "all but `secret_fields`".to_owned(),
                Secrecy::Nothing => "all".to_owned(),
            };
            let lifetime = if spec.is_generic() { "as the policy says" } else { engine.lifetime.as_str() };
            let parameters =
                if spec.is_generic() { "any".to_owned() } else { words(spec.parameters, spec.required) };
            writeln!(
                page,
                "| `{}` | {about} | {} | {lifetime} | {ttl} | {public} | {parameters} |",
                engine.name,
                paths(spec)
            )
            .unwrap();
        }
        page
    }

    fn paths(spec: &EngineSpec) -> String {
        let shown = spec.operations.iter().map(|operation| {
            let input = operation.input.map_or(String::new(), |input| format!(" with `{}`", input.as_str()));
            format!("`MOUNT/{}/NAME`{input}", operation.word)
        });
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() { "any".to_owned() } else { shown.join(", ") }
    }

    fn words(words: &[&str], required: &[&str]) -> String {
        let shown = |word: &&str| {
            if required.contains(word) { format!("`{word}` (due)") } else { format!("`{word}`") }
        };
        words.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

//! # Profiles
//!
//! A profile says what one CI system's tokens look like and how far each claim can be trusted. It is data, one file each
//! under [`kernel::identity::profiles`](crate::kernel::identity::profiles), and holds no policy: verification, the loader
//! of policies, the ledger and the page below read the same rows.
//!
//! What the words mean:
//!
//! - **Required** claims are always in a job's token. One that is missing, of another type, empty or with control
//!   characters is `token_malformed`: another kind of token of the same issuer is no job's. Any *other* claim of a wrong
//!   type, or null, matches nothing, not even `present: false`.
//! - **Shared** is an issuer that more than one tenant's tokens come from, by its URL. There a rule names one of the
//!   **tenant pins** by literals. Everywhere it names one of the claims beside "a rule names": names alone can be taken
//!   over after a rename.
//! - **Dangerous** triggers run what a stranger may have written, or hold more than a job does. They are denied unless a
//!   rule names them by a literal or a list item in the condition that stands behind them: `event_name: [push,
//!   pull_request_target]`. For GitLab `pipeline_source: [merge_request_event, fork]`: `fork` is no source, it says that
//!   forks' jobs are meant too. A trigger that the profile does not know is denied like a dangerous one, and named by the
//!   word that the token has.
//! - **Job key**: tokens with equal values are of one job, and may look after each other's issuances. Without one there
//!   is only the token itself.
//! - **Replay id**: what makes a token the same token.
//! - **Immutable** claims are never given to another. **Chosen by others** can be set by somebody without rights on the
//!   project, or by whoever writes a job: a rule needs more than them. **Identity** claims take no globs. **Personal**
//!   ones stand in the ledger as commitments.
//! - A claim with a slash in front is a JSON Pointer into an object; one with `…` stands for all that begin so. Registered
//!   claims (`iss`, `aud`, `exp`, `iat`, `nbf`, `jti`) are verification's, never policy's.
//!
//! Claims that are in no row are ignored. An audience is exactly one, ours, as a string or as an array of one. What
//! could not be verified against a live token is marked UNVERIFIED in the profile's own documentation.
//!
//! Beside the profile an issuer's entry in `hallpass.yaml` may say `gitlab_min_version: "18.2"`, the oldest version that
//! this GitLab instance may have. Before 18.4 a token does not tell in which project its job runs; with that word a job
//! without `job_project_id` is believed to run in its own, but for pipelines of merge requests and their children. Google
//! has its keys on another host than its issuer: `jwks_uri: https://www.googleapis.com/oauth2/v3/certs`.
//!
//! To add one: a file under `profiles/`, its lines in `profiles/mod.rs`, a full payload under `tests/fixtures/claims` and
//! a rule under `tests/fixtures/rules` with a line in `profiles/tests.rs`; then `cargo test --lib manual::profiles --
//! --ignored` writes this page's tables anew.
//!
#![doc = include_str!("profiles.md")]

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::kernel::identity::{
        profile::{ClaimKind, ClaimSpec, DemandedBy, NamedBy, Profile, Tenant},
        profiles::ALL,
    };

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual/profiles.md");

    #[test]
    fn the_tables_are_what_the_profiles_say() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(page == tables(), "run `cargo test --lib manual::profiles -- --ignored`");
    }

    #[test]
    #[ignore = "writes the page"]
    fn write_the_tables() {
        std::fs::write(PAGE, tables()).unwrap();
    }

    fn tables() -> String {
        let mut page = String::new();
        for profile in ALL {
            let name = profile.name;
            let module = format!("crate::kernel::identity::profiles::{}", name.replace('-', "_"));
            writeln!(
                page,
                "## `{name}`\n\nWhy, from which source, and what is UNVERIFIED: [`{name}`]({module}).\n"
            )
            .unwrap();
            writeln!(page, "| | |\n|---|---|").unwrap();
            for (name, text) in rows(profile).into_iter().filter(|(_, text)| !text.is_empty()) {
                writeln!(page, "| {name} | {text} |").unwrap();
            }
            page.push('\n');
        }
        page.truncate(page.trim_end().len() + 1);
        page
    }

    fn rows(profile: &Profile) -> Vec<(&'static str, String)> {
        let list = |of: &dyn Fn(&ClaimSpec) -> bool| {
            let plain = profile.claims.iter().filter(|claim| of(claim)).map(|claim| code(claim.name));
            let begun = profile
                .prefixes
                .iter()
                .filter(|claim| of(claim))
                .map(|claim| code(&format!("{}…", claim.name)));
            plain.chain(begun).collect::<Vec<_>>().join(", ")
        };
        let view = profile.view;
        let project = profile.project.map(|(id, name)| {
            name.map_or_else(|| code(id), |name| format!("{}, called {}", code(id), code(name)))
        });
        let seen = |claim: Option<&str>| claim.map(code).unwrap_or_default();
        let runner = view
            .runner
            .zip(view.hosted)
            .map(|(claim, word)| format!("{}, hosted where {}", code(claim), code(word)));
        vec![
            ("issuers", issuers(profile)),
            ("algorithms", codes(profile.algorithms.iter().map(|algorithm| algorithm.as_str()), ", ")),
            ("audience", audience(profile)),
            ("required", codes(profile.required(), ", ")),
            ("tenant", tenant(profile)),
            ("tenant pins", codes(profile.tenant_pins.iter().copied(), " or ")),
            ("a rule names", due(profile)),
            ("project", project.unwrap_or_else(|| "none".to_owned())),
            ("ref", seen(view.git_ref)),
            ("protected ref", seen(view.ref_protected)),
            ("definition", seen(view.definition)),
            ("environment", seen(view.environment)),
            ("runner", runner.unwrap_or_default()),
            ("actor", seen(view.actor)),
            ("run", seen(view.run)),
            ("trigger", seen(view.trigger)),
            ("ordinary triggers", codes(profile.ordinary.iter().copied(), ", ")),
            ("dangerous triggers", dangers(profile)),
            (
                "job key",
                if profile.job_key.is_empty() {
                    "none".to_owned()
                } else {
                    codes(profile.job_key.iter().copied(), " + ")
                },
            ),
            (
                "replay id",
                if profile.jti_always { "`jti`" } else { "`jti` where it is there, else the signed bytes" }
                    .to_owned(),
            ),
            ("immutable", list(&|claim| claim.immutable)),
            ("chosen by others", list(&|claim| claim.attacker_controlled)),
            ("identity", list(&|claim| claim.identity)),
            ("personal", list(&|claim| claim.personal)),
            ("other claims", others(profile)),
            ("without ASCII case", list(&|claim| claim.case_insensitive)),
            ("numbers", list(&|claim| claim.kind == ClaimKind::Integer)),
            ("booleans", list(&|claim| claim.kind == ClaimKind::Boolean)),
            ("lists of strings", list(&|claim| claim.kind == ClaimKind::TextList)),
            (
                "strings",
                if profile.open {
                    "whatever the token has, by its JSON type".to_owned()
                } else {
                    "all others".to_owned()
                },
            ),
        ]
    }

    fn issuers(profile: &Profile) -> String {
        let shown = profile.issuers.iter().map(|url| {
            let is_shared = (profile.is_shared)(url);
            format!("{}{}", code(url), if is_shared { " (shared)" } else { "" })
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn audience(profile: &Profile) -> String {
        profile.fixed_audience.map_or_else(
            || "the job's choice; a default of the vendor is refused".to_owned(),
            |fixed| format!("{} and no other; shared with everybody who trusts the vendor", code(fixed)),
        )
    }

    fn tenant(profile: &Profile) -> String {
        match profile.tenant {
            Tenant::Claim(claim) => code(claim),
            Tenant::Issuer => "the issuer".to_owned(),
            Tenant::Part { of, what, .. } => format!("the {what} in {}", code(of)),
        }
    }

    fn due(profile: &Profile) -> String {
        let any = codes(profile.anchors.iter().copied(), " or ");
        let demanded = profile.demands.iter().map(|demand| match demand.by {
            DemandedBy::Literals => code(demand.claim),
            DemandedBy::Match => format!("{} or a glob of it", code(demand.claim)),
        });
        std::iter::once(any).filter(|any| !any.is_empty()).chain(demanded).collect::<Vec<_>>().join("; and ")
    }

    fn dangers(profile: &Profile) -> String {
        let named = profile.dangers.iter().map(|danger| {
            let literal = match danger.named_by {
                NamedBy::Beginning(beginning) => code(&format!("{}: {beginning}…", danger.claim)),
                NamedBy::True => code(&format!("{}: true", danger.claim)),
                NamedBy::Word => code(&format!("{}: {}", danger.claim, danger.word)),
            };
            format!("{} ({literal})", code(danger.word))
        });
        if profile.dangers.is_empty() {
            "none known".to_owned()
        } else {
            named.collect::<Vec<_>>().join(", ")
        }
    }

    fn others(profile: &Profile) -> String {
        let is_other = |claim: &&ClaimSpec| {
            !(claim.immutable || claim.attacker_controlled || claim.identity || claim.personal)
        };
        let plain = profile.claims.iter().filter(is_other).map(|claim| code(claim.name));
        let begun = profile.prefixes.iter().filter(is_other).map(|claim| code(&format!("{}…", claim.name)));
        plain.chain(begun).collect::<Vec<_>>().join(", ")
    }

    fn codes<'a>(names: impl Iterator<Item = &'a str>, between: &str) -> String {
        names.map(code).collect::<Vec<_>>().join(between)
    }

    fn code(text: &str) -> String {
        format!("`{text}`")
    }
}

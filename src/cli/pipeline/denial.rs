//! Denials that help: what the client knows and the broker does not say, beside what it said. Where the token came from,
//! what it says of the job, what to paste so that the next run has a right one, and whom to give which id. Nothing here
//! decides anything, and nothing of it is secret: claims are what the job itself could read.
//!
//! On GitHub the same text is an error annotation and a block of the step's summary, where those who read the run look.

use std::{fs::OpenOptions, io::Write as _};

use jiff::Timestamp;

use super::{
    super::{
        exit::{Done, Exit, Failure},
        output,
    },
    broker::shown,
    identity::{Look, Source, indented},
};
use crate::{broker::ambient::Clock, kernel::secret::Secret};

/// What a person wants to know of the job, by the names that CI systems use; in this order, as many as there are.
const TELLING: [&str; 18] = [
    "sub",
    "repository",
    "project_path",
    "organization_slug",
    "pipeline_slug",
    "oidc.circleci.com/vcs-origin",
    "rpo_uri",
    "repositoryUuid",
    "ref",
    "ref_path",
    "build_branch",
    "oidc.circleci.com/vcs-ref",
    "rpo_ref",
    "branchName",
    "event_name",
    "pipeline_source",
    "build_source",
    "environment",
];

/// Adds to a refusal of the broker what the client knows about it.
pub(super) fn explain(failure: Failure, source: &Source, token: &Secret) -> Failure {
    explained(failure, source, Look::at(token).as_ref(), Clock::System.now())
}

fn explained(mut failure: Failure, source: &Source, look: Option<&Look>, now: Timestamp) -> Failure {
    let Some(problem) = &failure.problem else { return failure };
    let mut lines = vec![format!("the token: {}, which {}", source.system(), source.way())];
    match look {
        Some(look) => lines.push(format!("it says: {}", of_the_job(look))),
        None => lines
            .push("it cannot be read here: a token is three parts of base64url with dots between".to_owned()),
    }
    if !problem.failed_claims.is_empty() {
        let names = problem.failed_claims.join(", ");
        lines.push(format!("claims that no rule of the grant takes as they are: {names}"));
    }
    lines.extend(advice(&problem.code, source, look, now));
    if let Some(decision) = &problem.decision {
        lines.push(format!(
            "give {decision} to whoever keeps the policies: `hallpass ledger show {decision}` tells them the reason, which \
             no caller is told"
        ));
    }
    for line in lines {
        failure.message.push('\n');
        failure.message.push_str(&indented(&line));
    }
    failure
}

fn of_the_job(look: &Look) -> String {
    let told = TELLING.iter().filter_map(|claim| Some(format!("{claim} {}", shown(look.text(claim)?))));
    let told: Vec<String> = told.collect();
    if told.is_empty() { "nothing that is known here".to_owned() } else { told.join(", ") }
}

/// What to do about a code.
fn advice(code: &str, source: &Source, look: Option<&Look>, now: Timestamp) -> Vec<String> {
    let system = source.system();
    match code {
        "token_audience" => of_audience(source, look),
        "token_expired" | "token_too_old" => of_age(source, look, now),
        "token_not_yet_valid" => {
            vec![
                "its clock, this machine's or the broker's is wrong; a minute of difference is taken"
                    .to_owned(),
            ]
        }
        "token_issuer" => {
            let issuer = look.and_then(|look| look.text("iss")).map(shown).unwrap_or_default();
            vec![format!(
                "the broker trusts no issuer `{issuer}`, byte for byte; an administrator adds it to hallpass.yaml and \
                 policies/issuers/"
            )]
        }
        "token_malformed" | "token_missing" => match system.profile().and_then(|profile| profile.advice) {
            Some(advice) => vec![advice.to_owned()],
            None => Vec::new(),
        },
        "token_replayed" => vec![
            "a token is good once for each credential: ask for all grants of a step in one call, or have the \
             administrator set `uses_per_token`"
                .to_owned(),
        ],
        "access_denied" => match look.and_then(|look| look.danger(source)) {
            Some(danger) => vec![format!(
                "its trigger is `{danger}`, which anybody may set off: it is denied unless a rule names it"
            )],
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn of_audience(source: &Source, look: Option<&Look>) -> Vec<String> {
    let due = source.audience();
    let by =
        if due.is_named { "as --audience or HALLPASS_AUDIENCE says" } else { "which is its URL as written" };
    let had = look.map_or_else(|| "nobody".to_owned(), |look| look.audience_in_words(source));
    if look.is_some_and(|look| look.audiences() == [due.text.as_str()]) {
        return vec![format!(
            "it is for {had}, {by}, and this broker wants another audience from this issuer: ask its administrator for \
             the `audience` in policies/issuers/, and set HALLPASS_AUDIENCE to it"
        )];
    }
    let mut lines = vec![format!("the token is for {had}; this broker wants `{}`, {by}", due.text)];
    // What is asked for at each call needs no setting.
    if !source.renews() {
        lines.push(source.system().setup(&due.text));
    }
    lines
}

fn of_age(source: &Source, look: Option<&Look>, now: Timestamp) -> Vec<String> {
    let seconds = |duration: Option<jiff::SignedDuration>| duration.map(|duration| duration.as_secs());
    let over = seconds(look.and_then(|look| look.over_for(now)));
    let age = seconds(look.and_then(|look| look.age(now)));
    let mut lines = Vec::new();
    match (over, age) {
        (Some(over), _) => lines.push(format!("it expired {over} s ago by this machine's clock")),
        (None, Some(age)) => lines.push(format!("it was minted {age} s ago")),
        (None, None) => {}
    }
    lines.push(if source.renews() {
        "a fresh one is asked for each time, so the clock of this machine or of the broker is wrong"
            .to_owned()
    } else {
        "the CI system mints one for the job: ask sooner, or have the administrator raise `max_token_age` in \
         policies/issuers/"
            .to_owned()
    });
    lines
}

/// Tells the end of a command also where the CI system shows such things.
///
/// # Errors
///
/// As it was given.
pub(super) fn announced(done: Done) -> Done {
    if let Err(failure) = &done
        && !failure.message.is_empty()
        && std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true")
    {
        output::say(&annotation(&failure.message));
        if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
            // Never made: the runner makes it, elsewhere it would be a stray file.
            let opened = OpenOptions::new().append(true).open(path);
            // Nobody reads a summary that cannot be written, and the text is on stderr already.
            opened.and_then(|mut file| file.write_all(summary(failure).as_bytes())).ok();
        }
    }
    done
}

/// One workflow command of GitHub's. Encoded as `@actions/core` does, so that no part of the text becomes a command of
/// its own.
fn annotation(text: &str) -> String {
    let encoded = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::error title=Hallpass::{encoded}")
}

/// A block of Markdown in which the text is shown as it is.
fn summary(failure: &Failure) -> String {
    let headings = [
        (Exit::Denied, "denied"),
        (Exit::NoToken, "no identity token"),
        (Exit::RateLimited, "too many requests"),
        (Exit::Backend, "a backend failed"),
        (Exit::Unreachable, "the broker cannot be reached"),
    ];
    let heading =
        headings.iter().find(|(exit, _)| *exit == failure.exit).map_or("the step failed", |(_, text)| text);
    // A fence longer than any in the text.
    let mut fence = "```".to_owned();
    while failure.message.contains(&fence) {
        fence.push('`');
    }
    format!("### Hallpass: {heading}\n\n{fence}text\n{}\n{fence}\n", failure.message)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    use super::{
        super::{
            super::exit::Problem,
            identity::{Audience, System, Way},
        },
        *,
    };

    const NOW: i64 = 1_790_000_100;
    const URL: &str = "https://hallpass.example.com";

    fn refused(code: &str) -> Failure {
        let problem =
            Problem { code: code.to_owned(), decision: Some("dec_1".to_owned()), failed_claims: Vec::new() };
        let problem = Some(Box::new(problem));
        Failure {
            problem,
            ..Failure::new(Exit::Denied, format!("Refused: so it is ({code})\n  decision_id: dec_1"))
        }
    }

    fn source(system: System, way: Way) -> Source {
        Source::of(system, way, Audience { text: URL.to_owned(), is_named: false })
    }

    fn told(failure: Failure, source: &Source, claims: &Value) -> String {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let look = Look::at(&Secret::from_text(token));
        explained(failure, source, look.as_ref(), Timestamp::from_second(NOW).unwrap()).message
    }

    #[test]
    fn a_wrong_audience_comes_with_both_and_with_what_to_paste() {
        let claims =
            json!({ "aud": "https://other.example.com", "exp": NOW + 60, "sub": "project_path:acme/pay" });
        let gitlab = source(System::GitLab, Way::Variable("HALLPASS_ID_TOKEN".to_owned()));

        let told = told(refused("token_audience"), &gitlab, &claims);

        for due in [
            "Refused: so it is (token_audience)",
            "the token: GitLab CI/CD, which reads the variable HALLPASS_ID_TOKEN",
            "it says: sub project_path:acme/pay",
            "is for `https://other.example.com`; this broker wants `https://hallpass.example.com`, which is its URL",
            "    HALLPASS_ID_TOKEN:\n        aud: \"https://hallpass.example.com\"",
            "give dec_1 to whoever keeps the policies",
        ] {
            assert!(told.contains(due), "no {due:?} in:\n{told}");
        }
    }

    #[test]
    fn who_asked_for_the_right_audience_is_told_to_ask_for_another() {
        let claims = json!({ "aud": URL, "exp": NOW + 60 });
        let github = source(System::GitHub, Way::Variable("T".to_owned()));
        let told = told(refused("token_audience"), &github, &claims);
        assert!(told.contains("wants another audience from this issuer"), "{told}");
    }

    #[test]
    fn a_denial_says_what_the_client_knows_and_nothing_of_policy() {
        let github = source(System::GitHub, Way::Variable("T".to_owned()));
        let claims =
            json!({ "repository": "acme/pay", "ref": "refs/heads/x", "event_name": "issue_comment" });
        let ordinary = told(refused("access_denied"), &github, &json!({ "event_name": "push" }));
        let dangerous = told(refused("access_denied"), &github, &claims);
        assert!(dangerous.contains("repository acme/pay, ref refs/heads/x"), "{dangerous}");
        assert!(dangerous.contains("its trigger is `issue_comment`"), "{dangerous}");
        assert!(!ordinary.contains("trigger"), "{ordinary}");
        let mut owner = refused("access_denied");
        owner.problem.as_mut().unwrap().failed_claims = vec!["ref".to_owned()];
        assert!(told(owner, &github, &claims).contains("no rule of the grant takes as they are: ref"));
    }

    #[test]
    fn every_code_of_the_token_has_its_advice() {
        let variable = || Way::Variable("T".to_owned());
        let late = json!({ "iss": "https://ci.example.com", "iat": NOW - 900, "exp": NOW - 93, "aud": URL });
        for (code, system, due) in [
            ("token_expired", System::GitLab, "expired 93 s ago"),
            ("token_too_old", System::GitLab, "max_token_age"),
            ("token_not_yet_valid", System::GitHub, "clock"),
            ("token_issuer", System::GitLab, "no issuer `https://ci.example.com`"),
            ("token_malformed", System::Buildkite, "--claim organization_id,pipeline_id"),
            ("token_replayed", System::GitLab, "uses_per_token"),
        ] {
            let told = told(refused(code), &source(system, variable()), &late);
            assert!(told.contains(due), "{code}: {told}");
        }
        let plain = Failure::new(Exit::Unreachable, "the broker cannot be reached");
        let told = told(plain, &source(System::GitHub, variable()), &late);
        assert_eq!(told, "the broker cannot be reached", "what is no refusal is not explained");
    }

    #[test]
    fn an_annotation_is_one_command_whatever_the_text() {
        let annotation = annotation("50% denied\r\n::add-mask::x\n::set-output name=a::b");
        assert_eq!(
            annotation,
            "::error title=Hallpass::50%25 denied%0D%0A::add-mask::x%0A::set-output name=a::b"
        );
        assert_eq!(annotation.lines().count(), 1);
    }

    #[test]
    fn no_text_ends_the_fence_of_a_summary() {
        let summary = summary(&Failure::new(Exit::Denied, "a\n```\n<script>\n````"));
        assert!(summary.starts_with("### Hallpass: denied\n\n`````text\n") && summary.ends_with("\n`````\n"));
    }
}

//! `hallpass policy explain`: why a job would get a grant, or does not. The tree is the evaluator's own; three sources
//! give the claims: a token, a file of claims, or a decision of the ledger.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    claims,
    recorded::{self, Recorded},
    set::{Place, Stand, trusted},
};
use crate::{
    broker::Clock,
    cli::{
        exit::{Done, Exit, Failure},
        findings::printable,
        output::{self, Output},
    },
    kernel::{
        identity::JobIdentity,
        name::IssuerName,
        policy::{
            PolicySet,
            decide::{GrantRequest, Request},
            explain::{ExplainedCredential, ExplainedGrant, ExplainedRule, Explanation, Got, Step, explain},
            load,
        },
    },
};

/// `policy explain`
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["token", "claims", "decision"])))]
pub(crate) struct Explain {
    #[command(flatten)]
    place: Place,
    /// A file with a token, or `-` for stdin; its signature is not checked.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// A file with a token's claims as JSON, or `-` for stdin.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// A decision of the ledger, `dec_…`; needs the configuration.
    #[arg(long, value_name = "ID")]
    decision: Option<String>,
    /// A grant to explain; may stand several times [default: those that the decision was about, else every one].
    #[arg(long, value_name = "NAME")]
    grant: Vec<String>,
    /// The issuer, where the claims name none.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The moment [default: that of the decision, else now].
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is asked: who, for what, when; and how far the claims can be believed.
struct Question {
    identity: JobIdentity,
    request: Request,
    at: Timestamp,
    caveats: Vec<String>,
}

impl Explain {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Denied`] where the answer is no, as a script wants it; [`Exit::PolicyInvalid`], [`Exit::Usage`].
    pub(crate) fn run(self) -> Done {
        let config = self.place.configuration()?;
        let stands = self.place.read(config.as_ref())?;
        let [stand] = stands.as_slice() else {
            return Err(Failure::usage("name one policy directory"));
        };
        let set = load::load(&stand.files, stand.commit.clone(), trusted(config.as_ref()).as_ref());
        let set = set.map_err(|mut findings| {
            findings.iter_mut().for_each(|finding| finding.file = stand.shown(&finding.file));
            Failure::findings(Exit::PolicyInvalid, &findings)
        })?;
        let set = set.set;
        let question = match &self.decision {
            Some(id) => {
                let config = config.ok_or_else(|| {
                    Failure::usage("a decision stands in the ledger, so name the configuration by --config")
                })?;
                self.recorded(recorded::find(&config, id)?, &set)?
            }
            None => self.unchecked(&set)?,
        };
        let explanation = explain(&set, &question.identity, &question.request, question.at);
        self.tell(&explanation, &question, stand)?;
        if explanation.permit { Ok(()) } else { Err(Failure::silent(Exit::Denied)) }
    }

    fn unchecked(&self, set: &PolicySet) -> Result<Question, Failure> {
        let claims = match (&self.token, &self.claims) {
            (Some(path), _) => claims::of_token(path)?,
            (None, Some(path)) => claims::of_file(path)?,
            (None, None) => return Err(Failure::usage("name a token, claims or a decision")),
        };
        let issuer = self.issuer_of(&claims, set)?;
        let at = self.at.unwrap_or_else(|| Clock::System.now());
        let caveat = "SIGNATURE NOT CHECKED: anybody can write these claims; audience, age and replay are not looked at";
        let identity = identity(set, issuer, claims, at)?;
        Ok(Question { identity, request: self.request(set), at, caveats: vec![caveat.to_owned()] })
    }

    fn recorded(&self, recorded: Recorded, set: &PolicySet) -> Result<Question, Failure> {
        let Recorded { issuer, claims, grants, at, digest, mut caveats } = recorded;
        let at = self.at.unwrap_or(at);
        if digest.as_deref().is_some_and(|digest| digest != set.digest.to_string()) {
            caveats.push(
                "OTHER POLICY: the set that decided then had another digest; this says what these files would decide"
                    .to_owned(),
            );
        }
        let request = if self.grant.is_empty() { Request { grants } } else { self.request(set) };
        Ok(Question { identity: identity(set, issuer, claims, at)?, request, at, caveats })
    }

    fn issuer_of(&self, claims: &Map<String, Value>, set: &PolicySet) -> Result<IssuerName, Failure> {
        let url = claims.get("iss").and_then(Value::as_str);
        let found = match &self.issuer {
            Some(name) => set.issuers.keys().find(|known| known.as_str() == name),
            None => set
                .issuers
                .iter()
                .find(|(_, each)| Some(each.trusted.url.as_str()) == url)
                .map(|(name, _)| name),
        };
        found.cloned().ok_or_else(|| {
            let known: Vec<&str> = set.issuers.keys().map(|name| name.as_str()).collect();
            let message = match (&self.issuer, url) {
                (Some(name), _) => format!("no file in issuers/ names `{}`", printable(name)),
                (None, Some(url)) => format!("no issuer of this set has the URL `{}`", printable(url)),
                (None, None) => "the claims have no `iss`; name the issuer by --issuer".to_owned(),
            };
            Failure::usage(format!("{message}; known: {}", known.join(", ")))
        })
    }

    fn request(&self, set: &PolicySet) -> Request {
        let names: Vec<String> = if self.grant.is_empty() {
            set.names.iter().map(ToString::to_string).collect()
        } else {
            self.grant.clone()
        };
        let asked = |name| GrantRequest { name, credentials: None, ttl: None };
        Request { grants: names.into_iter().map(asked).collect() }
    }

    fn tell(&self, explanation: &Explanation, question: &Question, stand: &Stand) -> Done {
        if self.output == Output::Json {
            let tree = serde_json::to_value(explanation)
                .map_err(|fault| Failure::new(Exit::Internal, fault.to_string()))?;
            return output::json(&json!({
                "at": question.at.to_string(), "caveats": question.caveats, "explanation": tree,
            }));
        }
        question.caveats.iter().for_each(|caveat| output::say(&format!("!! {caveat}")));
        output::data(&text(explanation, question, stand))
    }
}

fn identity(
    set: &PolicySet,
    issuer: IssuerName,
    claims: Map<String, Value>,
    at: Timestamp,
) -> Result<JobIdentity, Failure> {
    let Some(policy) = set.issuers.get(&issuer) else {
        return Err(Failure::usage(format!("this set has no issuer `{issuer}`")));
    };
    let profile = policy.trusted.profile;
    JobIdentity::from_claims(issuer, profile, claims, at).map_err(|fault| {
        let message = format!(
            "these are no claims of the profile `{}`: {}; a broker would answer 401",
            profile.name, fault.reason
        );
        Failure::usage(message)
    })
}

fn text(explanation: &Explanation, question: &Question, stand: &Stand) -> String {
    let mut lines = vec![
        match explanation.reason {
            None => "permit".to_owned(),
            Some(reason) => format!("deny: {reason}"),
        },
        format!("  at {}, issuer {}, policy {}", question.at, question.identity.issuer(), explanation.digest),
    ];
    for grant in &explanation.grants {
        of_grant(grant, stand, &mut lines);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn of_grant(grant: &ExplainedGrant, stand: &Stand, lines: &mut Vec<String>) {
    let name = printable(&grant.name);
    let verdict = grant.reason.map_or_else(|| "permit".to_owned(), |reason| format!("deny: {reason}"));
    lines.push(String::new());
    let Some(found) = &grant.found else {
        lines.push(format!("grant {name}: {verdict}"));
        return;
    };
    let at = format!("{}:{}", stand.shown(&found.at.file), found.at.line);
    lines.push(format!("grant {name}: {verdict}  ({at}, class {})", found.class));
    if !found.enabled {
        lines.push("  NO  enabled: false".to_owned());
    }
    if let Some(end) = &found.lapses_at {
        lines.push(format!("  {}  valid before {end}", mark(!found.lapsed)));
    }
    found.rules.iter().for_each(|rule| of_rule(rule, stand, lines));
    for credential in &found.credentials {
        of_credential(credential, stand, lines);
    }
    for unknown in &found.unknown_credentials {
        lines.push(format!("  NO  there is no credential `{}`", printable(unknown)));
    }
}

fn of_rule(rule: &ExplainedRule, stand: &Stand, lines: &mut Vec<String>) {
    let at = format!("{}:{}", stand.shown(&rule.at.file), rule.at.line);
    lines.push(format!("  {}  rule {}  ({at})", mark(rule.held), rule.name));
    let steps = [Some(&rule.issuer)].into_iter().flatten().chain(&rule.conditions).chain(&rule.trigger);
    // Of another issuer's rule nothing else was looked at.
    let steps = steps.chain(&rule.window).take(if rule.issuer.held { usize::MAX } else { 1 });
    lines.extend(steps.map(|each| step(each, stand)));
}

fn of_credential(credential: &ExplainedCredential, stand: &Stand, lines: &mut Vec<String>) {
    let ttl = credential.ttl_seconds.map_or_else(|| "static".to_owned(), |seconds| format!("{seconds}s"));
    let refused = credential.guardrails.iter().any(|guardrail| !guardrail.held && guardrail.enforced);
    lines.push(format!(
        "  {}  credential {}: {} {}, class {}, {ttl}",
        mark(!refused),
        credential.name,
        credential.kind,
        printable(&credential.target),
        credential.class
    ));
    for guardrail in &credential.guardrails {
        let mode = match &guardrail.report_until {
            Some(until) if !guardrail.enforced => format!(", only reports until {until}"),
            Some(_) | None => String::new(),
        };
        let at = format!("{}:{}", stand.shown(&guardrail.at.file), guardrail.at.line);
        lines.push(format!("    {}  guardrail {}{mode}  ({at})", mark(guardrail.held), guardrail.name));
        lines.extend(guardrail.requirements.iter().map(|each| format!("  {}", step(each, stand))));
    }
}

fn step(step: &Step, stand: &Stand) -> String {
    let got = match &step.got {
        Got::Absent => "nothing".to_owned(),
        Got::Unusable => "something of another type than the profile's".to_owned(),
        Got::Text(text) => printable(text),
        Got::Value(value) => printable(&value.to_string()),
    };
    format!(
        "      {}  {}: wanted {}, got {got}  ({}:{})",
        mark(step.held),
        printable(&step.name),
        printable(&step.wanted),
        stand.shown(&step.at.file),
        step.at.line
    )
}

fn mark(held: bool) -> &'static str {
    if held { "ok" } else { "NO" }
}

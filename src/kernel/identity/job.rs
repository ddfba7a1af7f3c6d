//! The verified identity of one CI job: what policy decides on and what the ledger records.
//!
//! It is built by [`super::verify`] from a token whose signature holds, and by [`JobIdentity::from_claims`] for
//! policy tests, by the same reading. It has no `Debug`: claims hold personal data, and a log is not the ledger.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    profile::{ClaimSpec, Profile, REGISTERED, Tenant},
    verify::{FaultKind, TokenFault},
};
use crate::kernel::{digest::Digest, json, lifetime, name::IssuerName};

/// The claims of a verified token that its profile marks usable in policy and that have the profile's type.
pub type Claims = Map<String, Value>;

/// Who is calling. Built by [`super::verify`] only, from a token whose signature, audience and times hold.
pub struct JobIdentity {
    issuer: IssuerName,
    profile: &'static Profile,
    subject: String,
    claims: Claims,
    unusable: Vec<String>,
    trigger: Trigger,
    token: TokenMark,
}

/// What set the job off, as far as it matters to safety.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Runs code or text that a stranger may have written, with the project's own rights, or holds more than a job
    /// does; the word is one of the profile's [`dangers`](Profile::dangers) (`pull_request_target`, `workflow_run`,
    /// `issue_comment`, `fork`, `human_shell`, …).
    Dangerous(&'static str),
    /// An ordinary trigger.
    Ordinary,
    /// The profile knows triggers, and this token does not name one that it knows to be ordinary or dangerous.
    Unknown,
}

/// What is kept of a token: enough to recognise it again, never enough to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenMark {
    /// Digest over the issuer's URL and `jti`, or over the issuer's URL and the signed bytes where the token has
    /// no `jti`: the token id of the once-key.
    pub id: Digest,
    /// Issued at.
    pub iat: Timestamp,
    /// Expires at.
    pub exp: Timestamp,
}

impl JobIdentity {
    /// Builds what [`super::verify::verify`] builds once a signature holds, from claims alone. Policy tests and
    /// `explain` use it, never the exchange: nothing here proves anything. Registered claims are not needed; `sub`
    /// is `test` where it is absent, and the token's mark is made up from `now`.
    ///
    /// # Errors
    ///
    /// [`TokenFault`] where a claim that the profile requires is missing, of another type, or holds control
    /// characters, and where the claims are another kind of token's.
    pub fn from_claims(
        issuer: IssuerName,
        profile: &'static Profile,
        claims: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Self, TokenFault> {
        let text = Value::Object(claims.clone()).to_string();
        let token = TokenMark {
            id: Digest::of_parts(&[issuer.as_str().as_bytes(), b"claims", text.as_bytes()]),
            iat: now,
            exp: lifetime::after(now, TEST_TOKEN_LIFE),
        };
        let mut claims = claims;
        claims.entry("sub").or_insert_with(|| Value::from("test"));
        Self::read(issuer, profile, claims, token)
    }

    /// Reads the claims of an authentic token by its profile.
    pub(super) fn read(
        issuer: IssuerName,
        profile: &'static Profile,
        payload: Map<String, Value>,
        token: TokenMark,
    ) -> Result<Self, TokenFault> {
        for spec in profile.claims.iter().filter(|spec| spec.required) {
            check_required(spec, spec.find(&payload))?;
        }
        // Attack class F-12: the same keys sign other kinds of token.
        if let Some(claim) = (profile.foreign)(&payload) {
            return Err(malformed("another-kind", claim));
        }
        // Attack class C-09: what the identity shows, and what rules are mostly made of, holds no control characters.
        for name in profile.view.claims() {
            let value = profile.claim(name).and_then(|spec| spec.find(&payload));
            if value.is_some_and(has_control) {
                return Err(malformed("control-characters", name));
            }
        }
        let subject = payload.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Of the payload, not of the usable claims: a claim of another type is not an absent one.
        let trigger = (profile.trigger)(&payload);
        let mut claims = payload;
        let mut unusable = Vec::new();
        claims.retain(|name, value| match fitness(profile, name, value) {
            Fitness::Unknown => match read_inside(profile, name, value, &mut unusable) {
                Some(object) => {
                    *value = object;
                    true
                }
                None => false,
            },
            Fitness::Unusable => {
                unusable.push(name.clone());
                false
            }
            Fitness::Usable => true,
        });
        Ok(Self { issuer, profile, subject, claims, unusable, trigger, token })
    }

    /// The issuer's name in configuration and policy.
    pub fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// The issuer's profile.
    pub fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// `sub`, for people; personal where [`Self::is_personal`] says so.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Every claim that policy may use, typed as the profile says. What is not in here satisfies nothing but
    /// `present: false`.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The value of a claim, or of a JSON Pointer that the profile lists.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        match self.profile.claim(name) {
            Some(spec) if spec.is_nested() => spec.find(&self.claims),
            Some(_) | None => self.claims.get(name),
        }
    }

    /// Names of claims that are there and of another type than the profile's; they match nothing. Inside an object they
    /// are JSON Pointers.
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }

    /// The token's mark.
    pub fn token(&self) -> &TokenMark {
        &self.token
    }

    /// What set the job off.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// The trigger as the CI system names it.
    pub fn trigger_word(&self) -> Option<&str> {
        self.seen(self.profile.view.trigger)
    }

    /// The claim in whose condition a rule names this trigger; `trigger` where there is none.
    pub fn trigger_claim(&self) -> &'static str {
        let named = match self.trigger {
            Trigger::Dangerous(word) => self.profile.dangers.iter().find(|danger| danger.word == word),
            Trigger::Ordinary | Trigger::Unknown => None,
        };
        named.map(|danger| danger.claim).or(self.profile.view.trigger).unwrap_or("trigger")
    }

    /// The tenant's immutable id; `None` also where the issuer is one tenant's.
    pub fn tenant(&self) -> Option<&str> {
        match self.profile.tenant {
            Tenant::Claim(name) => self.seen(Some(name)),
            Tenant::Issuer => None,
            Tenant::Part { of, cut, .. } => self.seen(Some(of)).and_then(cut),
        }
    }

    /// The project's immutable id, and its readable name.
    pub fn project(&self) -> Option<(&str, Option<&str>)> {
        let (id, name) = self.profile.project?;
        Some((self.seen(Some(id))?, self.seen(name)))
    }

    /// The ref.
    pub fn git_ref(&self) -> Option<&str> {
        self.seen(self.profile.view.git_ref)
    }

    /// Whether the ref is protected; `None` where the token does not say.
    pub fn ref_protected(&self) -> Option<bool> {
        match self.claim(self.profile.view.ref_protected?)? {
            Value::Bool(protected) => Some(*protected),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            Value::Array(_) | Value::Null | Value::Number(_) | Value::Object(_) | Value::String(_) => None,
        }
    }

    /// The file that defines the job.
    pub fn definition(&self) -> Option<&str> {
        self.seen(self.profile.view.definition)
    }

    /// The environment.
    pub fn environment(&self) -> Option<&str> {
        self.seen(self.profile.view.environment)
    }

    /// The kind of runner.
    pub fn runner(&self) -> Option<&str> {
        self.seen(self.profile.view.runner)
    }

    /// Whether the vendor runs the runner; `None` where the token does not say.
    pub fn is_hosted(&self) -> Option<bool> {
        let hosted = self.profile.view.hosted?;
        self.runner().map(|runner| runner == hosted)
    }

    /// Who set the job off; personal.
    pub fn actor(&self) -> Option<&str> {
        self.seen(self.profile.view.actor)
    }

    /// The run's id.
    pub fn run(&self) -> Option<&str> {
        self.seen(self.profile.view.run)
    }

    /// The one job that this is, as `issuer:value:…` in the order of the profile: another token of the same job has
    /// the same text. `None` where a part is missing, empty or holds the separator, so that no two jobs share one.
    pub fn job_key(&self) -> Option<String> {
        if self.profile.job_key.is_empty() {
            return None;
        }
        let mut key = self.issuer.as_str().to_owned();
        for name in self.profile.job_key {
            let part = self.seen(Some(name)).filter(|part| !part.contains(':'))?;
            key.push(':');
            key.push_str(part);
        }
        Some(key)
    }

    /// Whether a claim's value is personal in this token, so that the ledger keeps a commitment only.
    pub fn is_personal(&self, name: &str) -> bool {
        self.profile.claim(name).is_some_and(|spec| spec.personal)
            || (name == "sub" && (self.profile.is_personal_subject)(&self.subject))
    }

    /// The usable claims that are personal.
    pub fn personal(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.claims
            .iter()
            .filter(|(name, _)| self.is_personal(name))
            .map(|(name, value)| (name.as_str(), value))
    }

    /// A claim of the view that is there and not empty: GitHub sends empty strings for what does not apply.
    fn seen(&self, name: Option<&str>) -> Option<&str> {
        self.claim(name?)?.as_str().filter(|value| !value.is_empty())
    }
}

enum Fitness {
    /// Not of the profile: ignored, since vendors add claims without notice (attack class C-11).
    Unknown,
    /// Of another type than the profile's.
    Unusable,
    Usable,
}

fn fitness(profile: &Profile, name: &str, value: &Value) -> Fitness {
    let usable = match profile.claim(name) {
        Some(spec) => spec.kind.fits(value),
        None if profile.open && !REGISTERED.contains(&name) => is_exact(value),
        None => return Fitness::Unknown,
    };
    if usable { Fitness::Usable } else { Fitness::Unusable }
}

/// What policy may use of an object: the members that the profile lists, each of its type. The rest is left out, like
/// any claim that the profile does not know.
fn read_inside(profile: &Profile, name: &str, object: &Value, unusable: &mut Vec<String>) -> Option<Value> {
    let mut read = Value::Object(Map::new());
    let mut is_empty = true;
    for spec in profile.inside(name) {
        match find_inside(spec, object) {
            None => {}
            Some(value) if spec.kind.fits(value) => {
                put_inside(spec, &mut read, value)?;
                is_empty = false;
            }
            Some(_) => unusable.push(spec.name.to_owned()),
        }
    }
    (!is_empty).then_some(read)
}

/// The value, or what stands in its way.
fn find_inside<'v>(spec: &ClaimSpec, object: &'v Value) -> Option<&'v Value> {
    let mut value = object;
    for part in spec.path().skip(1) {
        let Some(members) = value.as_object() else { return Some(&Value::Null) };
        value = members.get(part)?;
    }
    Some(value)
}

fn put_inside(spec: &ClaimSpec, object: &mut Value, value: &Value) -> Option<()> {
    let mut place = object;
    for part in spec.path().skip(1) {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = place.as_object_mut()?.entry(part).or_insert(Value::Null);
    }
    *place = value.clone();
    Some(())
}

/// Whether a value of an open profile means the same to everybody: not null, and without numbers that are no safe
/// integers (attack class C-03). Objects and arrays are kept for JSON Pointers into them.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => json::is_safe_integer(number),
        Value::Array(items) => items.iter().all(|item| item.is_null() || is_exact(item)),
        Value::Object(members) => members.values().all(|member| member.is_null() || is_exact(member)),
    }
}

fn check_required(spec: &ClaimSpec, value: Option<&Value>) -> Result<(), TokenFault> {
    let value = value.ok_or_else(|| malformed("missing-claim", spec.name))?;
    if !spec.kind.fits(value) {
        return Err(malformed("claim-type", spec.name));
    }
    if value.as_str().is_some_and(str::is_empty) {
        return Err(malformed("empty-claim", spec.name));
    }
    if has_control(value) {
        return Err(malformed("control-characters", spec.name));
    }
    Ok(())
}

/// Whether a string holds C0, C1 or DEL.
pub(super) fn has_control(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.chars().any(char::is_control))
}

fn malformed(reason: &str, claim: &str) -> TokenFault {
    TokenFault::new(FaultKind::Malformed, format!("{reason}:{claim}"))
}

/// GitHub's, whose tokens are the shortest-lived (300 s).
const TEST_TOKEN_LIFE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kernel::identity::testing::fixture;

    fn build(profile: &str, claims: Value) -> Result<JobIdentity, String> {
        let Value::Object(claims) = claims else { panic!("an object") };
        let issuer = IssuerName::parse("ci").unwrap();
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        JobIdentity::from_claims(issuer, Profile::by_name(profile).unwrap(), claims, now)
            .map_err(|fault| fault.reason)
    }

    fn github(name: &str, value: Value) -> Result<JobIdentity, String> {
        let mut claims = fixture("github-actions");
        claims[name] = value;
        build("github-actions", claims)
    }

    fn github_without(name: &str) -> Result<JobIdentity, String> {
        let mut claims = fixture("github-actions");
        claims.as_object_mut().unwrap().remove(name).unwrap();
        build("github-actions", claims)
    }

    #[test]
    fn github_job_is_seen_whole() {
        let job = build("github-actions", fixture("github-actions")).unwrap();
        assert_eq!(job.issuer().as_str(), "ci");
        assert_eq!(job.subject(), "repo:acme@4216/payments@701:environment:production");
        assert_eq!(job.tenant(), Some("4216"));
        assert_eq!(job.project(), Some(("701", Some("acme/payments"))));
        assert_eq!(job.git_ref(), Some("refs/heads/main"));
        assert_eq!(job.ref_protected(), Some(true));
        assert_eq!(job.trigger(), Trigger::Ordinary);
        assert_eq!(job.trigger_word(), Some("push"));
        assert_eq!(job.definition(), Some("acme/ci/.github/workflows/deploy.yml@refs/tags/v4"));
        assert_eq!(job.environment(), Some("production"));
        assert_eq!(job.runner(), Some("github-hosted"));
        assert_eq!(job.actor(), Some("alice"));
        assert_eq!(job.run(), Some("18412345678"));
        assert_eq!(job.job_key().as_deref(), Some("ci:701:18412345678:1:52412345678"));
        assert_eq!(job.unusable(), [] as [&str; 0]);
        assert_eq!(job.personal().collect::<Vec<_>>(), [("actor", &json!("alice"))]);
    }

    #[test]
    fn every_claim_of_the_fixtures_is_known_to_its_profile() {
        for (file, profile) in [
            ("github-actions", "github-actions"),
            ("github-actions-enterprise", "github-actions"),
            ("generic", "generic"),
        ] {
            let profile = Profile::by_name(profile).unwrap();
            for name in fixture(file).as_object().unwrap().keys() {
                let known =
                    REGISTERED.contains(&name.as_str()) || profile.claim(name).is_some() || profile.open;
                assert!(known, "{name} of {file}");
            }
        }
    }

    #[test]
    fn policy_sees_no_registered_claim_but_sub() {
        for (file, profile) in [("github-actions", "github-actions"), ("generic", "generic")] {
            let job = build(profile, fixture(file)).unwrap();
            assert!(job.claims().contains_key("sub"));
            assert!(REGISTERED.iter().all(|name| !job.claims().contains_key(*name)), "{file}");
        }
    }

    #[test]
    fn required_claims_must_be_there_typed_and_printable() {
        let profile = Profile::by_name("github-actions").unwrap();
        let required: Vec<_> = profile.required().collect();
        assert_eq!(
            required,
            [
                "iss",
                "aud",
                "exp",
                "iat",
                "jti",
                "sub",
                "repository",
                "repository_id",
                "repository_owner",
                "repository_owner_id",
                "run_attempt",
                "run_id"
            ]
        );
        for name in required.into_iter().filter(|name| *name != "sub" && !REGISTERED.contains(name)) {
            assert_eq!(github_without(name).err(), Some(format!("missing-claim:{name}")));
            assert_eq!(github(name, json!("")).err(), Some(format!("empty-claim:{name}")));
            assert_eq!(github(name, json!("x\u{0}y")).err(), Some(format!("control-characters:{name}")));
            assert_eq!(github(name, json!("x\u{85}y")).err(), Some(format!("control-characters:{name}")));
            for value in [json!(701), json!(["701"]), json!({"": "701"}), json!(true), json!(null)] {
                assert_eq!(github(name, value).err(), Some(format!("claim-type:{name}")));
            }
        }
    }

    #[test]
    fn control_characters_in_what_the_identity_shows_are_refused_elsewhere_kept() {
        assert_eq!(github("ref", json!("refs/heads/x\r\n")).err().as_deref(), Some("control-characters:ref"));
        let job = github("workflow", json!("x\u{0}y")).unwrap();
        assert_eq!(job.claims()["workflow"], json!("x\u{0}y"));
        assert!(github("environment", json!("x\u{202e}y")).is_ok());
    }

    #[test]
    fn other_claims_of_a_wrong_type_match_nothing() {
        for value in [json!(1), json!(["push"]), json!({}), json!(true), json!(null)] {
            let job = github("event_name", value).unwrap();
            assert_eq!(job.unusable(), ["event_name"]);
            assert!(!job.claims().contains_key("event_name"));
            assert_eq!(job.trigger(), Trigger::Unknown);
        }
    }

    #[test]
    fn unknown_claims_are_ignored() {
        let job = github("foo", json!("bar")).unwrap();
        assert!(!job.claims().contains_key("foo") && job.unusable().is_empty());
        let job = github("repo_property_tier", json!("1")).unwrap();
        assert_eq!(job.claims()["repo_property_tier"], "1");
        let job = github("repo_property_", json!("1")).unwrap();
        assert!(!job.claims().contains_key("repo_property_"));
    }

    #[test]
    fn triggers_that_run_a_strangers_code_are_dangerous_and_new_ones_unknown() {
        for word in ["pull_request_target", "workflow_run", "issue_comment", "fork"] {
            assert_eq!(github("event_name", json!(word)).unwrap().trigger(), Trigger::Dangerous(word));
        }
        for word in ["push", "pull_request", "workflow_dispatch", "schedule", "release", "merge_group"] {
            assert_eq!(github("event_name", json!(word)).unwrap().trigger(), Trigger::Ordinary, "{word}");
        }
        for word in ["brand_new_event", "", "Push", "issues", "PULL_REQUEST_TARGET"] {
            assert_eq!(github("event_name", json!(word)).unwrap().trigger(), Trigger::Unknown, "{word}");
        }
        assert_eq!(github_without("event_name").unwrap().trigger(), Trigger::Unknown);
    }

    #[test]
    fn job_key_needs_every_part() {
        let name = "check_run_id";
        assert_eq!(github_without(name).unwrap().job_key(), None);
        assert_eq!(github(name, json!("")).unwrap().job_key(), None);
        assert_eq!(github(name, json!("1:2")).unwrap().job_key(), None);
        assert_eq!(build("generic", fixture("generic")).unwrap().job_key(), None);
    }

    #[test]
    fn what_does_not_apply_is_absent() {
        let job = build("github-actions", fixture("github-actions-enterprise")).unwrap();
        assert_eq!(job.environment(), None);
        assert_eq!(job.ref_protected(), Some(false));
        assert_eq!(github("ref", json!("")).unwrap().git_ref(), None);
        assert_eq!(github("ref_protected", json!("TRUE")).unwrap().ref_protected(), None);
        assert_eq!(github_without("ref_protected").unwrap().ref_protected(), None);
    }

    #[test]
    fn subject_with_a_login_or_an_address_is_personal() {
        assert!(!github("sub", json!("repo:actor/x:ref:refs/heads/actor")).unwrap().is_personal("sub"));
        assert!(github("sub", json!("repo:acme/x:actor:alice")).unwrap().is_personal("sub"));
        let mut claims = fixture("generic");
        claims["sub"] = json!("alice@example.com");
        let job = build("generic", claims).unwrap();
        assert!(job.is_personal("sub") && job.is_personal("email") && !job.is_personal("pipeline"));
    }

    #[test]
    fn generic_claims_keep_their_json_type() {
        let job = build("generic", fixture("generic")).unwrap();
        assert_eq!(job.claims()["build_number"], json!(4711));
        assert_eq!(job.claims()["is_scheduled"], json!(false));
        assert_eq!(job.claims()["queue"]["labels"][0], json!("hardened"));
        assert_eq!(job.unusable(), ["step_key"]);
        assert_eq!(job.trigger(), Trigger::Ordinary);
        assert_eq!((job.tenant(), job.project()), (None, None));
        for (name, value) in
            [("x", json!(1.5)), ("x", json!(9_007_199_254_740_993_u64)), ("x", json!({"y": [1.0]}))]
        {
            let mut claims = fixture("generic");
            claims[name] = value.clone();
            let job = build("generic", claims).unwrap();
            assert!(job.unusable().contains(&"x".to_owned()) && !job.claims().contains_key("x"), "{value}");
        }
    }

    #[test]
    fn vendors_default_audiences_are_refused() {
        let github = Profile::by_name("github-actions").unwrap();
        let url = "https://token.actions.githubusercontent.com";
        for audience in [
            "https://github.com/acme",
            "https://github.com",
            "https://GitHub.com/acme",
            "https://acme.ghe.com/x",
        ] {
            assert!((github.refuses_audience)(url, audience), "{audience}");
        }
        for audience in
            ["https://hallpass.example.com", "https://github.com.example.com/x", "https://notghe.com/x"]
        {
            assert!(!(github.refuses_audience)(url, audience), "{audience}");
        }
        let server = "https://ghe.acme.example/_services/token";
        assert!((github.refuses_audience)(server, "https://ghe.acme.example/acme"));
        assert!(!(github.refuses_audience)(server, "https://ghe.acme.example.org/acme"));
        assert!(!(github.refuses_audience)(url, "https://ghe.acme.example/acme"));
        assert!(!(Profile::by_name("generic").unwrap().refuses_audience)(url, "https://github.com/acme"));
    }
}

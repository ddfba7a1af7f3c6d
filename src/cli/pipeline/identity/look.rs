//! A look into the token that nobody has verified yet: good for advice, never for a decision.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{super::broker::shown, Source};
use crate::kernel::{
    identity::job::Trigger,
    json::{Bounds, read_strict},
    secret::Secret,
};

/// What a token says of itself.
pub(in crate::cli::pipeline) struct Look {
    /// Its claims.
    pub(in crate::cli::pipeline) claims: Map<String, Value>,
}

/// By how much two clocks may differ before it is worth a word.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// As a broker reads claims.
const BOUNDS: Bounds = Bounds { depth: 8, nodes: 1024, string_bytes: 8 * 1024 };

impl Look {
    /// Reads the claims; `None` where it is no token.
    pub(in crate::cli::pipeline) fn at(token: &Secret) -> Option<Self> {
        let mut parts = token.expose_text()?.split('.');
        let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        match read_strict(&URL_SAFE_NO_PAD.decode(payload).ok()?, BOUNDS).ok()? {
            Value::Object(claims) => Some(Self { claims }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    /// Whom it is for.
    pub(in crate::cli::pipeline) fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
        }
    }

    /// A claim's text.
    pub(in crate::cli::pipeline) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    fn moment(&self, claim: &str) -> Option<Timestamp> {
        Timestamp::from_second(self.claims.get(claim)?.as_i64()?).ok()
    }

    /// For how long it has been over.
    pub(in crate::cli::pipeline) fn over_for(&self, now: Timestamp) -> Option<SignedDuration> {
        self.moment("exp").map(|exp| now.duration_since(exp)).filter(|over| over.is_positive())
    }

    /// How long ago it was minted.
    pub(in crate::cli::pipeline) fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        self.moment("iat").map(|iat| now.duration_since(iat))
    }

    /// The dangerous trigger of its job, by the profile of the CI system: denied unless a rule names it.
    pub(in crate::cli::pipeline) fn danger(&self, source: &Source) -> Option<&'static str> {
        match (source.system().profile()?.trigger)(&self.claims) {
            Trigger::Dangerous(word) => Some(word),
            Trigger::Ordinary | Trigger::Unknown => None,
        }
    }

    /// Whom it is for, in words, and that this is the vendor's default where it is.
    pub(in crate::cli::pipeline) fn audience_in_words(&self, source: &Source) -> String {
        let audiences = self.audiences();
        let words: Vec<String> = audiences.iter().map(|audience| format!("`{}`", shown(audience))).collect();
        let issuer = self.text("iss").unwrap_or_default();
        let is_default = |profile: &crate::kernel::identity::profile::Profile| {
            audiences.iter().any(|audience| (profile.refuses_audience)(issuer, audience))
        };
        match source.system().profile() {
            Some(profile) if is_default(profile) => {
                format!(
                    "{} (the default of {}, which every relying party is given)",
                    words.join(", "),
                    source.system()
                )
            }
            Some(_) | None if words.is_empty() => "nobody".to_owned(),
            Some(_) | None => words.join(", "),
        }
    }

    /// What a broker would refuse. An audience that nobody named is a guess where the token was pointed at, and not
    /// worth a word.
    pub(super) fn remarks(&self, source: &Source, now: Timestamp) -> Vec<String> {
        let mut remarks = Vec::new();
        let due = source.audience();
        let is_sure = due.is_named || source.system() != super::System::Explicit;
        if is_sure && self.audiences() != [due.text.as_str()] {
            remarks.push(format!("it is for {}, and not for `{}`", self.audience_in_words(source), due.text));
        }
        if let Some(over) = self.over_for(now).filter(|over| *over > LEEWAY) {
            remarks.push(format!("it expired {} s ago", over.as_secs()));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{Audience, System, Way},
        *,
    };

    const NOW: i64 = 1_790_000_100;

    fn token(claims: &Value) -> Secret {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        Secret::from_text(format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims)))
    }

    fn source(system: System, is_named: bool) -> Source {
        let audience = Audience { text: "https://hallpass.example.com".to_owned(), is_named };
        Source { system, way: Way::Variable("T".to_owned()), audience }
    }

    fn remarks(claims: &Value, source: &Source) -> Vec<String> {
        Look::at(&token(claims)).unwrap().remarks(source, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn what_a_broker_would_refuse_is_seen() {
        let github = source(System::GitHub, false);
        let good = json!({ "aud": "https://hallpass.example.com", "iat": NOW - 100, "exp": NOW + 200 });
        assert_eq!(remarks(&good, &github), Vec::<String>::new());
        let default = json!({
            "iss": "https://token.actions.githubusercontent.com", "aud": "https://github.com/acme", "exp": NOW + 200
        });
        let told = remarks(&default, &github);
        assert!(told[0].contains("`https://github.com/acme` (the default of GitHub Actions"), "{told:?}");
        let many = json!({ "aud": ["https://hallpass.example.com", "other"], "exp": NOW + 200 });
        assert_eq!(remarks(&many, &github).len(), 1, "a token for two is refused");
        let over = json!({ "aud": "https://hallpass.example.com", "exp": NOW - 93 });
        assert_eq!(remarks(&over, &github), ["it expired 93 s ago"]);
        let just_over = json!({ "aud": "https://hallpass.example.com", "exp": NOW - 30 });
        assert_eq!(remarks(&just_over, &github), Vec::<String>::new(), "clocks differ");
    }

    #[test]
    fn an_audience_that_nobody_named_is_no_matter_of_a_token_that_was_pointed_at() {
        let other = json!({ "aud": "https://other.example.com", "exp": NOW + 200 });
        assert_eq!(remarks(&other, &source(System::Explicit, false)), Vec::<String>::new());
        assert_eq!(remarks(&other, &source(System::Explicit, true)).len(), 1);
    }

    #[test]
    fn a_dangerous_trigger_is_seen() {
        let of = |system, claims: Value| {
            Look { claims: claims.as_object().unwrap().clone() }.danger(&source(system, false))
        };
        assert_eq!(
            of(System::GitHub, json!({ "event_name": "pull_request_target" })),
            Some("pull_request_target")
        );
        assert_eq!(of(System::GitHub, json!({ "event_name": "push" })), None);
        assert_eq!(of(System::CircleCi, json!({ "oidc.circleci.com/ssh-rerun": true })), Some("human_shell"));
    }

    #[test]
    fn what_is_no_token_is_not_looked_into() {
        for bad in ["", "a.b", "a.b.c.d", "header.claims.signature", "e30.W10.e30"] {
            assert!(Look::at(&Secret::from_text(bad.to_owned())).is_none(), "{bad}");
        }
    }
}

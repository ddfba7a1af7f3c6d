//! A broker under attack, and the verdicts that a group of cases can come to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::{
    exchange::members,
    support::{
        AUDIENCE, Answer, Installation, Issuer, Server,
        installation::CANARY,
        issuer::{KID, Key, own_key, set, sign, sign_text},
    },
};

/// One row: what is spoiled, and the token with it.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) token: String,
}

impl Case {
    pub(super) fn new(name: impl Into<String>, token: impl Into<String>) -> Self {
        Self { name: name.into(), token: token.into() }
    }
}

/// An installation that trusts three issuers: `ci` and `other` of GitHub's profile, and `any` of the generic one.
pub(super) struct Arena {
    pub(super) installation: Installation,
    pub(super) other: Issuer,
    pub(super) any: Issuer,
    server: Option<Server>,
    /// What each code's document says beside its id: it is the same for every fault with that code.
    told: BTreeMap<String, Value>,
    /// SUMMARY entries that earlier groups account for.
    summaries: usize,
    /// Refusals since the server started that became entries: a project has thirty a minute.
    refusals: usize,
    /// What must be in no log line.
    sent: Vec<String>,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self::with(Installation::new(), Issuer::start(), Issuer::start())
    }

    /// The same with an issuer of the generic profile that publishes these keys.
    pub(super) fn publishing(keys: Vec<Value>) -> Self {
        Self::with(Installation::new(), Issuer::start(), Issuer::publishing(keys))
    }

    /// The same with these issuers.
    pub(super) fn with(installation: Installation, other: Issuer, any: Issuer) -> Self {
        let trusted = [
            ("ci", &installation.issuer, "github-actions"),
            ("other", &other, "github-actions"),
            ("any", &any, "generic"),
        ];
        let mut configuration = "issuers:\n".to_owned();
        for (name, Issuer { url, .. }, profile) in trusted {
            configuration.push_str(&format!(
                "  {name}: {{ url: \"{url}\", profile: {profile}, allow_private_addresses: true }}\n"
            ));
            let policy = format!(
                "issuer: {name}\nprofile: {profile}\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
            );
            installation.write(&format!("policies/issuers/{name}.yaml"), &policy);
        }
        installation.configure(&configuration);
        let (told, sent) = (BTreeMap::new(), Vec::new());
        Self { installation, other, any, server: None, told, summaries: 0, refusals: 0, sent }
    }

    /// Adds a grant of the secret `npm-token`, as its one credential `npm`, to whoever one of these rules names.
    pub(super) fn grant(&self, name: &str, rules: &[(&str, &str)]) {
        let mut text = format!("grant: {name}\ndescription: A row of the attack table\nallow:\n");
        for (at, (issuer, conditions)) in rules.iter().enumerate() {
            text.push_str(&format!("  - name: rule-{at}\n    issuer: {issuer}\n    match: {conditions}\n"));
        }
        text.push_str("credentials:\n  npm:\n    sealed: { secret: npm-token }\n");
        self.installation.write(&format!("policies/grants/{name}.yaml"), &text);
    }

    /// The claims of a job of `ci` that the grant `deploy` permits.
    pub(super) fn claims(&self) -> Value {
        self.installation.issuer.valid_claims()
    }

    /// The same claims with some set otherwise; `null` takes one away.
    pub(super) fn claims_with(&self, spoiled: Value) -> Value {
        let mut claims = self.claims();
        set(&mut claims, spoiled);
        claims
    }

    /// A token of `ci` with some claims set otherwise.
    pub(super) fn token_with(&self, spoiled: Value) -> String {
        self.installation.issuer.mint(self.claims_with(spoiled))
    }

    pub(super) fn server(&mut self) -> &Server {
        let installation = &self.installation;
        self.server.get_or_insert_with(|| installation.serve())
    }

    /// Stops the server, which writes down what it only counted, and starts it again.
    pub(super) fn restart(&mut self) -> &Server {
        self.stop();
        self.server()
    }

    /// Stops the server; answers all that it logged, in which no token stands.
    pub(super) fn stop(&mut self) -> String {
        self.refusals = 0;
        let logs = self.server.take().map(Server::stop).unwrap_or_default();
        for secret in self.sent.iter().map(String::as_str).chain([CANARY]) {
            assert!(!logs.contains(secret), "in the log: {secret}");
        }
        logs
    }

    pub(super) fn exchange(&mut self, token: &str, grant: &str) -> Answer {
        let ask = json!({ "grants": [{ "name": grant, "credentials": ["npm"] }] });
        let signature = token.rsplit('.').next().unwrap_or(token);
        if signature.len() > 16 {
            self.sent.push(signature.to_owned());
        }
        self.server().public.exchange(token, &ask)
    }

    /// Tokens that prove nothing: 401, and the ledger only counts them, under this issuer, for this one reason.
    #[track_caller]
    pub(super) fn counted(&mut self, issuer: Option<&str>, code: &str, reason: &str, cases: &[Case]) {
        let denied = self.server().entries("DENIED").len();
        for case in cases {
            let answer = self.exchange(&case.token, "deploy");
            self.refused(case, &answer, 401, code);
        }
        self.permitted("deploy", &[Case::new("unspoiled", self.installation.issuer.token())]);
        let entries = self.restart().entries("SUMMARY");
        let new = &entries[..entries.len() - self.summaries];
        assert_eq!(count(new), cases.len() as u64, "counted for {reason}: {new:?}");
        for entry in new {
            let result = &entry["result"];
            assert_eq!(result["sample"], json!([reason]), "{code}: {entry}");
            assert_eq!((&result["of"], &result["issuer"]), (&json!("unverified"), &json!(issuer)), "{entry}");
            assert_eq!(
                entry.get("subject"),
                None,
                "it says whose token it was, which nothing proves: {entry}"
            );
        }
        self.summaries = entries.len();
        assert_eq!(self.server().entries("DENIED").len(), denied, "a stranger made the ledger grow");
    }

    /// Tokens that are authentic and do not hold: 401, and each is an entry with this reason. Answers the entries.
    #[track_caller]
    pub(super) fn recorded(&mut self, code: &str, reason: &str, cases: &[Case]) -> Vec<Value> {
        self.rest(cases.len());
        let answers = cases.iter().map(|case| {
            let answer = self.exchange(&case.token, "deploy");
            self.refused(case, &answer, 401, code)
        });
        let answers: Vec<Value> = answers.collect();
        let entries = self.server().entries("DENIED");
        let found = cases.iter().zip(answers).map(|(case, body)| {
            let its = |entry: &&Value| entry["request"]["id"] == body["request_id"];
            let entry = entries.iter().find(its).unwrap_or_else(|| panic!("{}: no entry", case.name));
            assert_eq!(entry["result"], json!({ "code": code, "reason": reason }), "{}", case.name);
            assert_eq!(entry.get("decision"), None, "{}: nothing was decided", case.name);
            entry.clone()
        });
        let found = found.collect();
        self.permitted("deploy", &[Case::new("unspoiled", self.installation.issuer.token())]);
        found
    }

    /// Jobs that policy does not permit this grant: 403, and each is an entry with this reason. Answers the entries.
    #[track_caller]
    pub(super) fn denied(&mut self, grant: &str, reason: &str, cases: &[Case]) -> Vec<Value> {
        self.rest(cases.len());
        let mut answers = Vec::new();
        for case in cases {
            let answer = self.exchange(&case.token, grant);
            answers.push(self.refused(case, &answer, 403, "access_denied"));
        }
        let entries = self.server().entries("DENIED");
        let found = cases.iter().zip(answers).map(|(case, body)| {
            let its = |entry: &&Value| entry["decision"] == body["decision_id"];
            let entry = entries.iter().find(its).unwrap_or_else(|| panic!("{}: no entry", case.name));
            assert_eq!(entry["result"]["code"], "access_denied", "{}: {entry}", case.name);
            assert_eq!(entry["result"]["reason"], reason, "{}: {entry}", case.name);
            entry.clone()
        });
        found.collect()
    }

    /// Jobs of tenants that no rule names: 403 like any other, but the ledger only counts them, for this one reason.
    #[track_caller]
    pub(super) fn denied_strangers(&mut self, grant: &str, reason: &str, cases: &[Case]) {
        self.restart();
        self.forget_summaries();
        let denied = self.server().entries("DENIED").len();
        for case in cases {
            let answer = self.exchange(&case.token, grant);
            self.refused(case, &answer, 403, "access_denied");
        }
        let entries = self.restart().entries("SUMMARY");
        for entry in &entries[..entries.len() - self.summaries] {
            let result = &entry["result"];
            assert_eq!((&result["of"], &result["issuer"]), (&json!("strangers"), &json!("ci")), "{entry}");
            assert_eq!(result["sample"], json!([reason]), "{entry}");
        }
        assert_eq!(count(&entries[..entries.len() - self.summaries]), cases.len() as u64);
        self.summaries = entries.len();
        assert_eq!(self.server().entries("DENIED").len(), denied, "a stranger made the ledger grow");
    }

    /// Tokens that get the credential of this grant.
    #[track_caller]
    pub(super) fn permitted(&mut self, grant: &str, cases: &[Case]) {
        for Case { name, token } in cases {
            let answer = self.exchange(token, grant);
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(answer.json()["issuances"][0]["fields"]["value"], CANARY, "{name}");
        }
    }

    /// Holds the whole answer to the contract: status, headers, and a document that is the same for every fault of
    /// this code but for its id. Answers the document.
    #[track_caller]
    pub(super) fn refused(&mut self, case: &Case, answer: &Answer, status: u16, code: &str) -> Value {
        let Case { name, token } = case;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{name}: {answer:?}"
        );
        let body = answer.problem(status, code);
        let id = if status == 401 || status == 400 { "request_id" } else { "decision_id" };
        let mut expected = BTreeSet::from(["code", "detail", id, "status", "title", "type"]);
        if status == 429 || status == 503 {
            expected.remove("decision_id");
            expected.extend(["request_id", "retry_after_seconds"]);
        }
        assert_eq!(members(&body).into_iter().collect::<BTreeSet<_>>(), expected, "{name}: {body}");
        assert_eq!(body["type"], format!("urn:hallpass:problem:{code}"), "{name}");
        let mut rest = body.clone();
        set(&mut rest, json!({ "request_id": null, "decision_id": null, "retry_after_seconds": null }));
        let before = self.told.entry(code.to_owned()).or_insert_with(|| rest.clone());
        assert_eq!(rest, *before, "{name}: one code, two documents");
        hold_headers(name, answer, status);
        for part in token.split('.').filter(|part| part.len() >= 8) {
            assert!(!answer.body.contains(part), "{name}: the answer repeats the token: {answer:?}");
        }
        body
    }

    /// Starts anew where so many more refusals would no longer be entries of their own.
    fn rest(&mut self, refusals: usize) {
        assert!(refusals <= 30, "one group would be more than a minute's entries");
        if self.refusals + refusals > 30 {
            self.restart();
            self.forget_summaries();
        }
        self.refusals += refusals;
    }

    /// Takes what the ledger has counted until now as accounted for; the server must have been restarted before.
    pub(super) fn forget_summaries(&mut self) {
        self.summaries = self.server().entries("SUMMARY").len();
    }
}

/// How many refusals these SUMMARY entries stand for.
fn count(summaries: &[Value]) -> u64 {
    summaries.iter().map(|entry| entry["result"]["count"].as_u64().unwrap()).sum()
}

/// Every header of a refusal, and no other.
#[track_caller]
fn hold_headers(name: &str, answer: &Answer, status: u16) {
    let mut expected = BTreeMap::from([
        ("cache-control", "no-store".to_owned()),
        ("content-length", answer.body.len().to_string()),
        ("content-type", "application/problem+json".to_owned()),
        ("pragma", "no-cache".to_owned()),
        ("vary", "Authorization".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ]);
    if status == 401 {
        expected.insert("www-authenticate", r#"Bearer error="invalid_token""#.to_owned());
    }
    if status == 429 || status == 503 {
        expected.insert("retry-after", answer.json()["retry_after_seconds"].to_string());
    }
    let found: BTreeMap<&str, String> = answer
        .headers
        .keys()
        .map(|header| (header.as_str(), answer.header(header.as_str()).to_owned()))
        .filter(|(header, _)| !["connection", "date"].contains(header))
        .collect();
    assert_eq!(found, expected, "{name}");
}

impl Drop for Arena {
    /// The logs of the last run are looked at as well.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// The header of an ordinary token of `ci`.
pub(super) fn header() -> Value {
    json!({ "alg": "RS256", "typ": "JWT", "kid": KID })
}

/// A header with some members set otherwise; `null` takes one away.
pub(super) fn header_with(spoiled: Value) -> Value {
    let mut header = header();
    set(&mut header, spoiled);
    header
}

/// A token signed by `ci`'s key under another header.
pub(super) fn signed_as(header: &Value, claims: &Value) -> String {
    sign(own_key(), header, claims)
}

/// The same for a header and a payload that need not be JSON.
pub(super) fn signed_text(header: &str, payload: &str) -> String {
    sign_text(own_key(), header, payload)
}

/// A token of the issuer `any`.
pub(super) fn minted_by(key: &Key, algorithm: &str, kid: &str, claims: &Value) -> String {
    sign(key, &json!({ "alg": algorithm, "kid": kid }), claims)
}

//! Sessions of roles at a real STS, Ceph's: it fetches our keys, verifies signature, audience, subject and tags itself,
//! and lets S3 calls through or not as role and session policy say.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hallpass::{
    adapters::mint::{Assertions, Aws, AwsSettings, assertions::generate, aws::Way},
    broker::ports::{MintFault, Minted, Minter as _, Order, Subject},
    kernel::{
        assertion::{AWS_AUDIENCE, Algorithm},
        id::{DecisionId, IssuanceId},
        name::{CredentialName, GrantName},
        policy::target::{AwsTarget, Backend, Target},
    },
};
use serde_json::{Value, json};

use super::support::{
    installation::run,
    issuer::now,
    key::{Key, compact},
    moto::Moto,
    python,
    radosgw::{AUDIENCE, Front, Keys, Radosgw, caller_identity},
    runtime,
};

const GRANT: &str = "payments-prod";

#[test]
fn hand_made_assertion_is_taken_and_each_spoiled_one_is_refused() {
    let gateway = Radosgw::shared();
    let (front, key, another) = (Front::start(), Key::rsa(), Key::rsa());
    front.publish(&json!({ "keys": [key.jwk("one")] }));
    gateway.trust(&front);
    let role = gateway.role(&fresh("hand"), &front, GRANT, &json!({ "aws:RequestTag/team": "payments" }));
    let assume = |assertion: String| {
        let arguments =
            json!({ "RoleArn": role, "RoleSessionName": "by-hand", "WebIdentityToken": assertion });
        let nobody = Keys { id: "none".to_owned(), secret: "none".to_owned(), session: None };
        gateway.call(&nobody, ("sts", "assume_role_with_web_identity"), &arguments)
    };
    let good = json!({
        "iss": front.url, "sub": format!("grant:{GRANT}"), "aud": AUDIENCE, "jti": "1",
        "iat": now(), "nbf": now(), "exp": now() + 120,
        "https://aws.amazon.com/tags": { "principal_tags": { "team": ["payments"] } },
        "https://aws.amazon.com/source_identity": "by-hand",
    });
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "one" }).to_string();
    let signed = |claims: &Value, key: &Key| compact(&header, &claims.to_string(), |bytes| key.sign(bytes));

    let answer = assume(signed(&good, &key)).unwrap();

    assert!(
        answer["Credentials"]["SessionToken"].as_str().is_some_and(|token| token.len() > 100),
        "{answer}"
    );
    let none = compact(r#"{"alg":"none"}"#, &good.to_string(), |_| Vec::new());
    assert!(assume(none).is_err(), "it takes what nobody signed");
    assert!(assume(signed(&good, &another)).is_err(), "it takes another's signature");
    for (name, value) in [
        ("aud", json!("https://another.test")),
        ("exp", json!(now() - 5)),
        ("https://aws.amazon.com/tags", json!({ "principal_tags": { "team": ["search"] } })),
        ("https://aws.amazon.com/tags", Value::Null),
        ("iss", json!("http://127.0.0.1:1")),
        ("sub", json!("grant:payments-staging")),
    ] {
        let mut spoiled = good.clone();
        spoiled[name] = value.clone();
        assert!(assume(signed(&spoiled, &key)).is_err(), "it takes {name}: {value}");
    }
}

#[test]
fn session_of_our_assertion_does_what_its_policy_lets_it_and_no_more() {
    let broker = Minting::new("limited", &json!({}));
    let bucket = fresh("bucket");
    let policy = r#"{
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject", "s3:CreateBucket"], "Resource": ["arn:aws:s3:::*"] }
        ]
    }"#;
    let whole = broker.session(None, &[]);
    let limited = broker.session(Some(policy), &[]);

    let s3 = |keys: &Keys, call: &str, arguments: Value| broker.gateway.call(keys, ("s3", call), &arguments);
    s3(&limited, "create_bucket", json!({ "Bucket": bucket })).unwrap();
    s3(&limited, "put_object", json!({ "Bucket": bucket, "Key": "a", "Body": "within" })).unwrap();
    let read = s3(&limited, "get_object", json!({ "Bucket": bucket, "Key": "a" })).unwrap();
    assert_eq!(read["Body"], "within");
    let removed = s3(&limited, "delete_object", json!({ "Bucket": bucket, "Key": "a" }));
    assert_eq!(removed.unwrap_err(), "AccessDenied", "the session policy does not let it");
    s3(&whole, "delete_object", json!({ "Bucket": bucket, "Key": "a" })).expect("the role itself may");
    let forged = Keys { secret: "x".repeat(40), ..whole };
    assert!(s3(&forged, "list_objects_v2", json!({ "Bucket": bucket })).is_err(), "it takes any secret key");
}

#[test]
fn tags_of_the_assertion_decide_who_gets_the_role() {
    let broker = Minting::new("tagged", &json!({ "aws:RequestTag/team": "payments" }));

    broker.session(None, &[("team", "payments"), ("run", "1")]);

    for tags in [&[("team", "search")][..], &[][..]] {
        assert_eq!(
            broker.mint(broker.order(None, tags)).err(),
            Some(MintFault::failed("access-denied")),
            "{tags:?}"
        );
    }
}

#[test]
fn role_of_another_grant_another_audience_and_a_key_that_is_not_published_are_refused_for_certain() {
    let broker = Minting::new("mine", &json!({}));
    let refused = Some(MintFault::failed("access-denied"));

    let other_grant =
        Order { grant: GrantName::parse("payments-staging").unwrap(), ..broker.order(None, &[]) };
    assert_eq!(broker.mint(other_grant).err(), refused, "another subject");

    let elsewhere = Way::WebIdentity { audience: "https://another.test".to_owned() };
    let other_audience = aws(&broker.assertions, &broker.gateway.endpoint, elsewhere);
    assert_eq!(fetch(&other_audience, &broker.order(None, &[])).err(), refused, "another audience");

    let unknown = assertions(&broker.front.url);
    let unpublished = aws(&unknown, &broker.gateway.endpoint, by_assertion());
    assert_eq!(fetch(&unpublished, &broker.order(None, &[])).err(), refused, "another signature");
}

#[test]
fn entry_says_who_the_session_is_and_its_end_is_what_was_asked() {
    let broker = Minting::new("told", &json!({}));
    let order = broker.order(None, &[("team", "payments")]);
    let (issuance, asked) = (order.issuance, order.now);

    let minted = broker.mint(order).ok().unwrap();

    let arn = minted.told["session_arn"].as_str().unwrap();
    assert!(arn.ends_with(&format!("assumed-role/{}/{issuance}", broker.role_name())), "{arn}");
    assert_eq!(minted.told["source_identity"], issuance.to_string());
    assert!(minted.told["filled_percent"].is_u64(), "{}", minted.told);
    assert!(minted.told["kid"].as_str().is_some_and(|kid| kid.len() == 43), "{}", minted.told);
    let seconds = minted.expires_at.unwrap().as_second() - asked.as_second();
    assert!((899..=905).contains(&seconds), "{seconds}");
    let secret = |field: &&hallpass::broker::ports::Field| field.is_secret;
    let names: Vec<&str> = minted.fields.iter().filter(secret).map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["secret_access_key", "session_token"]);
}

#[test]
fn denying_older_sessions_of_the_role_cuts_off_one_that_was_issued() {
    let broker = Minting::new("denied", &json!({}));
    let session = broker.session(None, &[]);
    let bucket = fresh("bucket");
    let list = || broker.gateway.call(&session, ("s3", "list_buckets"), &json!({}));
    broker.gateway.call(&session, ("s3", "create_bucket"), &json!({ "Bucket": bucket })).unwrap();
    list().unwrap();

    let everything = json!({ "Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"] });
    let older = json!({
        "Effect": "Deny", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"],
        "Condition": { "DateLessThan": { "aws:TokenIssueTime": "2099-01-01T00:00:00Z" } },
    });
    broker.gateway.allow(broker.role_name(), &json!([everything, older]));

    assert_eq!(list().unwrap_err(), "AccessDenied");
}

/// The policies of `examples/aws/terraform`, as Terraform's own parser reads them and fills them in.
#[test]
fn example_for_terraform_is_read_by_its_parser_and_its_policies_hold_at_a_real_sts() {
    let read = terraform(&examples().join("terraform"));
    let gateway = Radosgw::shared();
    let front = Front::start();
    let assertions = assertions(&front.url);
    front.publish(&assertions.jwks(moment()));
    gateway.trust(&front);
    let host = front.url.trim_start_matches("http://");
    let bucket = fresh("releases");
    let document = |resource: &str, argument: &str| -> Value {
        let text = read[resource][argument].as_str().unwrap();
        let text = text.replace("hallpass.example.com", host);
        serde_json::from_str(&text.replace("acme-payments-releases", &bucket)).unwrap()
    };
    let mut trust = document("aws_iam_role.payments_deploy", "assume_role_policy");
    // This STS (Ceph 16) knows no source identity, and refuses a policy that names the action.
    let actions = trust["Statement"][0]["Action"].as_array_mut().unwrap();
    assert_eq!(actions.pop(), Some(json!("sts:SetSourceIdentity")));
    let permissions = document("aws_iam_role_policy.payments_deploy", "policy");
    assert_eq!(read["aws_iam_openid_connect_provider.hallpass"]["client_id_list"], json!([AWS_AUDIENCE]));
    let name = fresh("example");
    let role_arn = gateway.role_by(&name, &trust, &permissions["Statement"]);
    let aws = aws(&assertions, &gateway.endpoint, by_assertion());
    let session = |grant: &str, team: &str| {
        let tags = [("team".to_owned(), team.to_owned()), ("run".to_owned(), "9000".to_owned())].into();
        let (session_policy, managed_policies) = (None, Vec::new());
        let order = order(AwsTarget {
            backend: Backend::Unnamed,
            role_arn: role_arn.clone(),
            tags,
            session_policy,
            managed_policies,
        });
        fetch(&aws, &Order { grant: GrantName::parse(grant).unwrap(), ..order })
    };

    let keys = keys(&session("payments-aws", "payments").expect("the example's grant has the role"));

    for (grant, team) in [("payments-aws", "search"), ("search-aws", "payments")] {
        assert_eq!(session(grant, team).err(), Some(MintFault::failed("access-denied")), "{grant} {team}");
    }
    let s3 = |keys: &Keys, call: &str, arguments: Value| gateway.call(keys, ("s3", call), &arguments);
    let made = s3(&keys, "create_bucket", json!({ "Bucket": bucket }));
    assert_eq!(made.unwrap_err(), "AccessDenied", "the permissions do not name it");
    gateway.bucket(&bucket);
    s3(&keys, "put_object", json!({ "Bucket": bucket, "Key": "release", "Body": "1" })).unwrap();
    let elsewhere =
        s3(&keys, "put_object", json!({ "Bucket": fresh("other"), "Key": "release", "Body": "1" }));
    assert!(elsewhere.is_err(), "it may write anywhere");
}

/// The forms of the service, and nothing else: moto takes any assertion and any role.
#[test]
fn shape_of_answers_fits_the_sdk_and_the_keys_know_who_they_are() {
    let moto = Moto::start();
    let assertions = assertions("https://hallpass.example.com");
    let minter = aws(&assertions, &moto.endpoint, by_assertion());
    let order = order(AwsTarget {
        backend: Backend::Unnamed,
        role_arn: "arn:aws:iam::123456789012:role/payments-deploy".to_owned(),
        tags: [("team".to_owned(), "payments".to_owned())].into(),
        session_policy: Some(r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned()),
        managed_policies: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()],
    });

    let minted = fetch(&minter, &order).ok().unwrap();

    let arn = format!("arn:aws:sts::123456789012:assumed-role/payments-deploy/{}", order.issuance);
    assert_eq!(minted.told["session_arn"], arn);
    let who = caller_identity(&moto.endpoint, &keys(&minted));
    assert_eq!(who["Arn"], arn);
    let seconds = minted.expires_at.unwrap().as_second() - order.now.as_second();
    assert!((899..=905).contains(&seconds), "{seconds}");
}

/// A role that one grant may assume, and what mints its sessions.
struct Minting {
    gateway: &'static Radosgw,
    front: Front,
    assertions: Arc<Assertions>,
    aws: Aws,
    role: String,
}

impl Minting {
    fn new(role: &str, conditions: &Value) -> Self {
        let gateway = Radosgw::shared();
        let front = Front::start();
        let assertions = assertions(&front.url);
        front.publish(&assertions.jwks(moment()));
        gateway.trust(&front);
        let role = gateway.role(&fresh(role), &front, GRANT, conditions);
        let aws = aws(&assertions, &gateway.endpoint, by_assertion());
        Self { gateway, front, assertions, aws, role }
    }

    fn role_name(&self) -> &str {
        self.role.rsplit('/').next().unwrap()
    }

    fn order(&self, session_policy: Option<&str>, tags: &[(&str, &str)]) -> Order {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        order(AwsTarget {
            backend: Backend::Unnamed,
            role_arn: self.role.clone(),
            tags,
            session_policy: session_policy.map(str::to_owned),
            managed_policies: Vec::new(),
        })
    }

    fn mint(&self, order: Order) -> Result<Minted, MintFault> {
        fetch(&self.aws, &order)
    }

    fn session(&self, session_policy: Option<&str>, tags: &[(&str, &str)]) -> Keys {
        match self.mint(self.order(session_policy, tags)) {
            Err(fault) => panic!("{fault}"),
            Ok(minted) => keys(&minted),
        }
    }
}

fn keys(minted: &Minted) -> Keys {
    let fields: serde_json::Map<String, Value> = minted
        .fields
        .iter()
        .map(|field| (field.name.clone(), json!(field.value.expose_text().unwrap())))
        .collect();
    Keys::of(&Value::Object(fields))
}

fn assertions(issuer: &str) -> Arc<Assertions> {
    Arc::new(Assertions::new(issuer, &generate(Algorithm::Rs256).unwrap()).unwrap())
}

fn by_assertion() -> Way {
    Way::WebIdentity { audience: AWS_AUDIENCE.to_owned() }
}

fn aws(assertions: &Arc<Assertions>, endpoint: &str, way: Way) -> Aws {
    let settings = AwsSettings {
        name: "aws".to_owned(),
        region: "us-east-1".to_owned(),
        fips: false,
        endpoint: Some(endpoint.to_owned()),
        ca_file: None,
        way,
        timeout: Duration::from_secs(10),
    };
    Aws::new(Arc::clone(assertions), [settings]).ok().unwrap()
}

fn order(target: AwsTarget) -> Order {
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Order {
        issuance: IssuanceId::from_bytes(bytes),
        decision: DecisionId::from_bytes(bytes),
        grant: GrantName::parse(GRANT).unwrap(),
        credential: CredentialName::parse("aws").unwrap(),
        target: Target::Aws(Arc::new(target)),
        ttl: Some(Duration::from_secs(900)),
        input: None,
        subject: Subject::default(),
        now: moment(),
    }
}

fn fetch(aws: &Aws, order: &Order) -> Result<Minted, MintFault> {
    runtime().block_on(aws.fetch(order, None))
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws")
}

/// Every resource of a folder, by `tests/terraform`.
fn terraform(folder: &Path) -> Value {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("terraform-reader");
    let go = ["go", "/usr/local/go/bin/go"];
    let built = go.iter().find_map(|go| {
        let mut command = Command::new(go);
        command.args(["build", "-mod=readonly", "-o"]).arg(&binary).arg(".");
        command.current_dir(python::tests().join("terraform")).status().ok()
    });
    assert!(built.expect("go is missing; run .ci/run").success());
    serde_json::from_str(&run(Command::new(binary).arg(folder), "")).unwrap()
}

/// A name that no other test of this run has.
fn fresh(name: &str) -> String {
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

fn moment() -> jiff::Timestamp {
    jiff::Timestamp::from_second(now()).unwrap()
}

static NEXT: AtomicU32 = AtomicU32::new(1);

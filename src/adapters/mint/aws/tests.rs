use std::{collections::BTreeMap, sync::Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    adapters::mint::assertions::generate,
    broker::ports::Subject,
    kernel::{
        assertion::{AWS_AUDIENCE, Algorithm},
        id::{DecisionId, IssuanceId},
        name::{CredentialName, GrantName, SecretName},
    },
};

/// What was asked: the path, and the form.
type Requests = Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>;

const ROLE: &str = "arn:aws:iam::123456789012:role/payments-deploy";

/// What the service says to one request.
#[derive(Clone)]
enum Say {
    /// That status and body.
    Answer(u16, String),
    /// A body that ends before its announced length.
    Cut,
    /// Nothing, ever.
    Nothing,
}

/// An answer in the form of the service's reference, "Errors" of the query protocol.
fn refusal(status: u16, code: &str) -> Say {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error>\
         <RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ErrorResponse>"
    );
    Say::Answer(status, body)
}

/// The example of the service's reference, with an end of its own and an `xmlns` that the SDK checks not.
fn session() -> Say {
    session_until("2027-01-13T10:15:00Z")
}

fn session_until(end: &str) -> Say {
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult>\
         <SubjectFromWebIdentityToken>grant:payments-prod</SubjectFromWebIdentityToken>\
         <Audience>sts.amazonaws.com</Audience>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/payments-deploy/iss_x</Arn>\
         <AssumedRoleId>AROACLKWSDQRAOEXAMPLE:iss_x</AssumedRoleId></AssumedRoleUser>\
         <Credentials><SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE</SessionToken>\
         <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>\
         <Expiration>{end}</Expiration><AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId></Credentials>\
         <PackedPolicySize>12</PackedPolicySize></AssumeRoleWithWebIdentityResult>\
         <ResponseMetadata><RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId></ResponseMetadata>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    Say::Answer(200, body)
}

/// A service that says one thing after the other, the last one for ever, and keeps what it was asked.
struct Service {
    endpoint: String,
    asked: Requests,
}

impl Service {
    async fn saying(script: &[Say]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, told) = (script.to_vec(), Arc::clone(&asked));
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let say = script.get(number).or(script.last()).unwrap().clone();
                tokio::spawn(serve(stream, say, Arc::clone(&told)));
            }
        });
        Self { endpoint, asked }
    }

    fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn serve(mut stream: TcpStream, say: Say, asked: Requests) {
    let mut read = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        read.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8(read.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").unwrap().1;
        if body.len() == length.lines().next().unwrap().parse::<usize>().unwrap() {
            break (head, body.to_owned());
        }
    };
    asked.lock().unwrap().push((head, form_urlencoded::parse(body.as_bytes()).into_owned().collect()));
    let answer = match say {
        Say::Answer(status, body) => format!(
            "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nLocation: /elsewhere\r\n\r\n{body}",
            body.len()
        ),
        Say::Cut => {
            "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n<AssumeRoleWithWebIdentityResponse>".to_owned()
        }
        Say::Nothing => std::future::pending().await,
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
}

fn minter(endpoint: &str) -> Aws {
    let assertions =
        Assertions::new("https://hallpass.example.com", &generate(Algorithm::Rs256).unwrap()).unwrap();
    let settings = AwsSettings {
        name: "aws".to_owned(),
        region: "eu-west-2".to_owned(),
        fips: false,
        endpoint: Some(endpoint.to_owned()),
        ca_file: None,
        way: Way::WebIdentity { audience: AWS_AUDIENCE.to_owned() },
        timeout: Duration::from_millis(500),
    };
    Aws::new(Arc::new(assertions), [settings]).ok().unwrap()
}

fn order() -> Order {
    let target = AwsTarget {
        backend: Backend::Unnamed,
        role_arn: ROLE.to_owned(),
        tags: BTreeMap::from([("repo".to_owned(), "acme/payments".to_owned())]),
        session_policy: Some("{ \"Version\": \"2012-10-17\",\n  \"Statement\": [] }".to_owned()),
        managed_policies: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()],
    };
    Order {
        issuance: IssuanceId::from_bytes([1; 16]),
        decision: DecisionId::from_bytes([2; 16]),
        grant: GrantName::parse("payments-prod").unwrap(),
        credential: CredentialName::parse("aws").unwrap(),
        target: Target::Aws(Arc::new(target)),
        ttl: Some(Duration::from_secs(900)),
        input: None,
        subject: Subject::default(),
        now: "2027-01-13T10:00:00Z".parse().unwrap(),
    }
}

/// What the minter makes of a service that says this, and how often it asked.
async fn after(script: &[Say]) -> (Result<Minted, MintFault>, usize) {
    let service = Service::saying(script).await;
    let outcome = minter(&service.endpoint).fetch(&order(), None).await;
    (outcome, service.calls())
}

async fn fault_after(script: &[Say]) -> (MintFault, usize) {
    let (outcome, calls) = after(script).await;
    (outcome.err().unwrap(), calls)
}

#[tokio::test]
async fn asks_unsigned_with_the_issuance_as_session_name_and_tags_in_the_assertion_only() {
    let service = Service::saying(&[session()]).await;

    let minted = minter(&service.endpoint).fetch(&order(), None).await.ok().unwrap();

    let asked = service.asked.lock().unwrap().clone();
    let [(head, form)] = asked.as_slice() else { panic!("asked {} times", asked.len()) };
    assert!(!head.contains("authorization:") && !head.contains("x-amz-security-token"), "{head}");
    let issuance = IssuanceId::from_bytes([1; 16]).to_string();
    let mut expected = BTreeMap::from(
        [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", ROLE),
            ("RoleSessionName", &issuance),
            ("DurationSeconds", "900"),
            ("Policy", r#"{"Statement":[],"Version":"2012-10-17"}"#),
            ("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let mut form = form.clone();
    let assertion = form.remove("WebIdentityToken").unwrap();
    let claims = assertion.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(form, std::mem::take(&mut expected));
    assert_eq!(claims["sub"], "grant:payments-prod");
    assert_eq!(claims["aud"], "sts.amazonaws.com");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 120);
    assert_eq!(
        claims["https://aws.amazon.com/tags"],
        json!({ "principal_tags": { "repo": ["acme/payments"] } })
    );
    assert_eq!(claims["https://aws.amazon.com/source_identity"], issuance.as_str());
    let fields: Vec<(&str, &str, bool)> = minted
        .fields
        .iter()
        .map(|field| (field.name.as_str(), field.value.expose_text().unwrap(), field.is_secret))
        .collect();
    assert_eq!(
        fields,
        [
            ("access_key_id", "ASgeIAIOSFODNN7EXAMPLE", false),
            ("secret_access_key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY", true),
            ("session_token", "AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE", true),
        ]
    );
    assert_eq!(minted.expires_at, Some("2027-01-13T10:15:00Z".parse().unwrap()));
    assert_eq!(minted.told["filled_percent"], 12);
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_three_times_and_nothing_was_made() {
    for (code, status, reason) in [
        ("IDPCommunicationError", 400, "issuer-not-reached"),
        ("Throttling", 400, "throttled"),
        ("ServiceUnavailable", 503, "backend-unavailable"),
    ] {
        let bad = refusal(status, code);
        assert_eq!(fault_after(std::slice::from_ref(&bad)).await, (MintFault::failed(reason), 3), "{code}");
        let (outcome, calls) = after(&[bad.clone(), bad, session()]).await;
        assert!(outcome.is_ok() && calls == 3, "{code}");
    }
}

#[tokio::test]
async fn a_refused_assertion_is_followed_by_one_more_and_no_third() {
    for (code, reason) in
        [("InvalidIdentityToken", "assertion-refused"), ("ExpiredTokenException", "assertion-expired")]
    {
        let bad = refusal(400, code);
        assert_eq!(fault_after(std::slice::from_ref(&bad)).await, (MintFault::failed(reason), 2), "{code}");
        let (outcome, calls) = after(&[bad, session()]).await;
        assert!(outcome.is_ok() && calls == 2, "{code}");
    }
}

#[tokio::test]
async fn what_the_configuration_or_a_policy_must_mend_is_asked_once() {
    for (code, status, reason) in [
        ("AccessDenied", 403, "access-denied"),
        ("IDPRejectedClaim", 403, "claim-rejected"),
        ("MalformedPolicyDocument", 400, "session-policy-malformed"),
        ("PackedPolicyTooLarge", 400, "session-policy-too-large"),
        ("RegionDisabledException", 403, "region-disabled"),
        ("ValidationError", 400, "request-refused"),
    ] {
        assert_eq!(fault_after(&[refusal(status, code)]).await, (MintFault::failed(reason), 1), "{code}");
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_a_doubt_that_a_later_refusal_does_not_take_away() {
    let denied = refusal(403, "AccessDenied");
    let lost = |reason| MintFault::Lost { reason };
    assert_eq!(fault_after(&[Say::Cut]).await, (lost("answer-lost"), 3));
    assert_eq!(fault_after(&[Say::Cut, denied.clone()]).await, (lost("access-denied"), 2));
    assert_eq!(fault_after(&[refusal(500, "InternalFailure")]).await, (lost("backend-error"), 3));
    assert_eq!(fault_after(&[Say::Nothing, denied]).await, (MintFault::Timeout, 2));
    let (outcome, calls) = after(&[Say::Cut, session()]).await;
    assert!(outcome.is_ok() && calls == 2, "a session that nobody has is no harm");
}

#[tokio::test]
async fn an_answer_that_is_no_session_is_a_doubt_and_is_not_asked_for_again() {
    let lost = |reason| MintFault::Lost { reason };
    let answer = |body: &str| Say::Answer(200, body.to_owned());
    let empty = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>\
                 </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    assert_eq!(fault_after(&[answer("{}")]).await, (lost("answer-malformed"), 1));
    assert_eq!(fault_after(&[answer(empty)]).await, (lost("answer-without-credentials"), 1));
    assert_eq!(fault_after(&[answer(&"x".repeat(100_000))]).await, (lost("answer-too-large"), 1));
    assert_eq!(fault_after(&[session_until("2027-01-13T10:00:00Z")]).await.0, lost("session-over-already"));
    assert_eq!(fault_after(&[Say::Answer(302, String::new())]).await, (lost("answer-malformed"), 1));
}

#[tokio::test]
async fn what_cannot_be_reached_or_is_not_configured_made_nothing() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let unreachable = minter(&closed).fetch(&order(), None).await;
    assert_eq!(unreachable.err(), Some(MintFault::failed("backend-unreachable")));

    let Target::Aws(target) = order().target else { panic!("an AWS target") };
    let elsewhere = AwsTarget { backend: Backend::Named("other".into()), ..(*target).clone() };
    let elsewhere = Order { target: Target::Aws(Arc::new(elsewhere)), ..order() };
    assert_eq!(
        minter(&closed).fetch(&elsewhere, None).await.err(),
        Some(MintFault::failed("no-such-backend"))
    );

    let unfit = AwsTarget { session_policy: Some("{".to_owned()), ..(*target).clone() };
    let unfit = Order { target: Target::Aws(Arc::new(unfit)), ..order() };
    assert_eq!(
        minter(&closed).fetch(&unfit, None).await.err(),
        Some(MintFault::failed("session-policy-malformed"))
    );

    let other = Order { target: Target::Sealed { secret: SecretName::parse("x").unwrap() }, ..order() };
    assert_eq!(
        minter(&closed).fetch(&other, None).await.err(),
        Some(MintFault::failed("target-of-another-kind"))
    );
}

#[test]
fn of_two_connections_none_is_meant_by_a_credential_that_names_none() {
    let one = minter("http://127.0.0.1:1");
    let settings = &one.connections["aws"].settings;
    let both = [settings.clone(), AwsSettings { name: "dr".to_owned(), ..settings.clone() }];
    let both = Aws::new(Arc::clone(&one.assertions), both).ok().unwrap();
    assert!(both.connection(&Backend::Unnamed).is_none());
    assert_eq!(both.connection(&Backend::Named("dr".into())).unwrap().settings.name, "dr");
}

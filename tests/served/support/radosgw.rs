//! A real STS, IAM and S3: Ceph's object gateway, which verifies assertions, trust policies, tags and session policies in
//! earnest. One cluster serves all tests of a run; its shell takes it away when this process ends.
//!
//! What it needs beyond AWS stands here and not in the product: a certificate beside each key of the issuer, of whose
//! keys it tries the first only (Ceph 16). [`Front`] publishes another's keys like that.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::{Json, Router, routing::get};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{
    component::{folder, free_port},
    npm::Script,
    python, runtime,
};

/// The `aud` that its provider knows.
pub(crate) const AUDIENCE: &str = "sts.amazonaws.com";

/// The running gateway.
pub(crate) struct Radosgw {
    /// Its address, for every service.
    pub(crate) endpoint: String,
    caller: Mutex<Script>,
    // Its end of the pipe closes with this process.
    _shell: (Child, ChildStdin),
}

/// Who signs a call.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) session: Option<String>,
}

impl Keys {
    /// What an exchange gave.
    pub(crate) fn of(fields: &Value) -> Self {
        let text =
            |name: &str| fields[name].as_str().unwrap_or_else(|| panic!("{name}: {fields}")).to_owned();
        Self {
            id: text("access_key_id"),
            secret: text("secret_access_key"),
            session: Some(text("session_token")),
        }
    }

    fn admin() -> Self {
        Self { id: "ADMIN".to_owned(), secret: "of-this-test".to_owned(), session: None }
    }
}

impl Radosgw {
    /// The one of this run; it takes a quarter of a minute to make.
    pub(crate) fn shared() -> &'static Self {
        static ONE: OnceLock<Radosgw> = OnceLock::new();
        ONE.get_or_init(Self::start)
    }

    fn start() -> Self {
        // Its shell removes it.
        let folder = folder("radosgw").keep();
        let (monitor, gateway) = (free_port(), free_port());
        let mut command = Command::new(python::tests().join("radosgw/serve.sh"));
        command.arg(&folder).args([monitor.to_string(), gateway.to_string()]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = spawned.unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
        let stdin = child.stdin.take().unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        assert!(ready.is_some_and(|line| line.unwrap() == "ready"), "radosgw does not start; run .ci/run");
        let endpoint = format!("http://127.0.0.1:{gateway}");
        let caller = Mutex::new(caller(&endpoint));
        Self { endpoint, caller, _shell: (child, stdin) }
    }

    /// Calls a service as somebody; the code of its refusal otherwise.
    pub(crate) fn call(
        &self,
        who: &Keys,
        (service, call): (&str, &str),
        arguments: &Value,
    ) -> Result<Value, String> {
        let who = json!({ "id": who.id, "secret": who.secret, "session": who.session });
        let order = json!({ "service": service, "call": call, "arguments": arguments, "as": who });
        let mut heard = self.caller.lock().unwrap_or_else(PoisonError::into_inner).ask(&order);
        match heard["fault"].as_str() {
            Some(code) => Err(code.to_owned()),
            None => Ok(heard["answer"].take()),
        }
    }

    fn administer(&self, call: &str, arguments: &Value) -> Value {
        self.call(&Keys::admin(), ("iam", call), arguments).unwrap_or_else(|fault| panic!("{call}: {fault}"))
    }

    /// Lets roles trust an issuer.
    pub(crate) fn trust(&self, front: &Front) {
        let provider = json!({
            "Url": front.url, "ClientIDList": [AUDIENCE], "ThumbprintList": ["0".repeat(40)],
        });
        self.administer("create_open_id_connect_provider", &provider);
    }

    /// Makes a role that the grant's assertions may assume, if the conditions hold too, and that may do everything in S3.
    pub(crate) fn role(&self, name: &str, front: &Front, grant: &str, conditions: &Value) -> String {
        let host = front.url.trim_start_matches("http://");
        let mut equals =
            json!({ (format!("{host}:sub")): format!("grant:{grant}"), (format!("{host}:aud")): AUDIENCE });
        for (key, value) in conditions.as_object().into_iter().flatten() {
            equals[key] = value.clone();
        }
        let trust = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": { "Federated": [format!("arn:aws:iam::123456789012:oidc-provider/{host}")] },
            "Action": ["sts:AssumeRoleWithWebIdentity", "sts:TagSession"],
            "Condition": { "StringEquals": equals },
        }]});
        let everything = json!([{ "Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"] }]);
        self.role_by(name, &trust, &everything)
    }

    /// Makes a bucket as somebody who may, for roles that may only write to it.
    pub(crate) fn bucket(&self, name: &str) {
        self.call(&Keys::admin(), ("s3", "create_bucket"), &json!({ "Bucket": name })).unwrap();
    }

    /// Makes a role by its policies; answers its ARN.
    pub(crate) fn role_by(&self, name: &str, trust: &Value, statements: &Value) -> String {
        // Without a single space: it takes a form's plus sign for a plus sign.
        self.administer(
            "create_role",
            &json!({ "RoleName": name, "AssumeRolePolicyDocument": trust.to_string() }),
        );
        self.allow(name, statements);
        format!("arn:aws:iam::123456789012:role/{name}")
    }

    /// Writes the role's permissions.
    pub(crate) fn allow(&self, role: &str, statements: &Value) {
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        self.administer(
            "put_role_policy",
            &json!({ "RoleName": role, "PolicyName": "permissions", "PolicyDocument": policy }),
        );
    }
}

/// Whose keys those are, as another server in the shape of AWS says.
pub(crate) fn caller_identity(endpoint: &str, keys: &Keys) -> Value {
    let who = json!({ "id": keys.id, "secret": keys.secret, "session": keys.session });
    let order = json!({ "service": "sts", "call": "get_caller_identity", "arguments": {}, "as": who });
    caller(endpoint).ask(&order)["answer"].take()
}

fn caller(endpoint: &str) -> Script {
    Script::spawn(python::program("aws", "python").arg(python::tests().join("aws/cloud.py")).arg(endpoint))
}

/// An issuer's documents as radosgw wants them, at a URL of their own, which is the issuer's name.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) url: String,
    keys: Arc<Mutex<Value>>,
}

impl Front {
    pub(crate) fn start() -> Self {
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(json!({ "keys": [] })));
        let told = Arc::clone(&keys);
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(async move || Json(discovery.clone())))
            .route("/keys", get(async move || Json(told.lock().unwrap().clone())));
        runtime().spawn(async move { axum::serve(listener, router).await });
        Self { url, keys }
    }

    /// Publishes those keys as they are, for whoever needs no certificate and reads all.
    pub(crate) fn publish_all(&self, jwks: &Value) {
        *self.keys.lock().unwrap() = jwks.clone();
    }

    /// Publishes the first of those keys, with a certificate.
    pub(crate) fn publish(&self, jwks: &Value) {
        let mut first = jwks["keys"][0].clone();
        first["x5c"] = json!([STANDARD.encode(certificate(&first))]);
        *self.keys.lock().unwrap() = json!({ "keys": [first] });
    }
}

/// A certificate of an RSA key; nobody looks at who signed it.
fn certificate(jwk: &Value) -> Vec<u8> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let authority = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["issuer.test".to_owned()]).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &authority);
    let subject =
        Public(der(0x30, &[der(0x02, &unsigned(&part("n"))), der(0x02, &unsigned(&part("e")))].concat()));
    params.signed_by(&subject, &issuer).unwrap().der().to_vec()
}

/// A DER `RSAPublicKey`.
struct Public(Vec<u8>);

impl rcgen::PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

fn unsigned(integer: &[u8]) -> Vec<u8> {
    if integer.first().is_some_and(|byte| *byte >= 0x80) {
        [&[0], integer].concat()
    } else {
        integer.to_vec()
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, u8::try_from(length).unwrap()],
        0x80..=0xff => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => [&[tag, 0x82], &u16::try_from(length).unwrap().to_be_bytes()[..]].concat(),
    };
    [head, content.to_vec()].concat()
}

//! What a step asks for: grants, and how they are narrowed. Whatever can be found wrong without the broker is found
//! while the arguments are read, before a token is fetched or used up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::error::ErrorKind;
use serde_json::{Map, Value};

use crate::kernel::{lifetime::parse_duration, name::is_name};

/// The grants of one exchange: at most 8, no two equal.
#[derive(Debug)]
pub(super) struct Ask {
    /// The grants; all of them or nothing.
    pub(super) grants: Vec<String>,
    /// Only these credentials: `NAME` of each grant, `GRANT.NAME` of one.
    pub(super) credential: Vec<String>,
    ttl_seconds: Option<u64>,
    /// By grant and credential.
    inputs: BTreeMap<(String, String), Input>,
    reason: Option<String>,
}

/// The arguments as they are written.
#[derive(Debug, clap::Args)]
struct Written {
    /// The grants; all of them or nothing, at most 8.
    #[arg(value_name = "GRANT", required = true, num_args = 1..)]
    grants: Vec<String>,
    /// Only this credential, of each grant, or of one: GRANT.NAME; may be given several times.
    #[arg(long, value_name = "NAME")]
    credential: Vec<String>,
    /// For no longer than this, such as 10m; what policy gives is only ever cut.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// What a credential is made from: GRANT.CREDENTIAL=@FILE, a certificate request, an SSH public key or the digest
    /// to sign; the file shows which, else say GRANT.CREDENTIAL.csr=@FILE, .public_key or .input.
    #[arg(long, value_name = "WHAT=@FILE")]
    input: Vec<String>,
    /// Why, for the audit record; at most 256 characters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What a credential is made from, as the API calls it.
#[derive(Debug, PartialEq, Eq)]
struct Input {
    member: &'static str,
    text: String,
}

/// The API's own bounds (contract: section 3).
const MOST_GRANTS: usize = 8;
const MOST_REASON_CHARACTERS: usize = 256;
const MOST_INPUT_BYTES: usize = 16 * 1024;
/// The lengths of SHA-1 and of SHA-2 digests, which a file may hold as they are.
const DIGEST_BYTES: [usize; 5] = [20, 28, 32, 48, 64];

impl Ask {
    /// The body of `POST /v1/exchange`.
    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("grants".to_owned(), self.grants.iter().map(|name| self.grant(name)).collect());
        if let Some(reason) = &self.reason {
            body.insert("reason".to_owned(), reason.as_str().into());
        }
        body.into()
    }

    fn grant(&self, name: &str) -> Value {
        let mut grant = Map::new();
        grant.insert("name".to_owned(), name.into());
        let credentials: Vec<&str> = self.credentials_of(name).collect();
        if !credentials.is_empty() {
            grant.insert("credentials".to_owned(), credentials.into());
        }
        if let Some(seconds) = self.ttl_seconds {
            grant.insert("ttl_seconds".to_owned(), seconds.into());
        }
        let inputs = self.inputs.iter().filter(|((of, _), _)| of == name).map(|((_, credential), input)| {
            let member = (input.member.to_owned(), Value::from(input.text.as_str()));
            (credential.clone(), Value::from(Map::from_iter([member])))
        });
        let inputs: Map<String, Value> = inputs.collect();
        if !inputs.is_empty() {
            grant.insert("inputs".to_owned(), inputs.into());
        }
        grant.into()
    }

    /// The credentials that a grant is narrowed to; none where it is not.
    fn credentials_of(&self, grant: &str) -> impl Iterator<Item = &str> {
        self.credential.iter().filter_map(move |text| match text.split_once('.') {
            Some((of, name)) => (of == grant).then_some(name),
            None => Some(text.as_str()),
        })
    }

    fn read(written: Written) -> Result<Self, String> {
        let Written { grants, credential, ttl, input, reason } = written;
        check_grants(&grants)?;
        let ttl_seconds = match ttl {
            Some(text) => {
                let duration = parse_duration(&text).map(|duration| duration.as_secs());
                Some(duration.ok_or(format!("`--ttl {text}` is no duration such as 90s, 10m or 1h"))?)
            }
            None => None,
        };
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > MOST_REASON_CHARACTERS) {
            return Err(format!("--reason has more than {MOST_REASON_CHARACTERS} characters"));
        }
        let mut ask = Self { grants, credential, ttl_seconds, inputs: BTreeMap::new(), reason };
        ask.check_credentials()?;
        for text in &input {
            ask.give(text)?;
        }
        Ok(ask)
    }

    fn check_credentials(&self) -> Result<(), String> {
        for text in &self.credential {
            let name = match text.split_once('.') {
                Some((grant, name)) => {
                    self.check_asked(grant, text)?;
                    name
                }
                None => text,
            };
            if !is_name(name) {
                return Err(format!("`--credential {text}` is neither NAME nor GRANT.NAME"));
            }
        }
        for grant in &self.grants {
            let mut seen = BTreeSet::new();
            if let Some(name) = self.credentials_of(grant).find(|name| !seen.insert(*name)) {
                return Err(format!("the credential `{name}` of `{grant}` is named twice"));
            }
        }
        Ok(())
    }

    /// Reads `GRANT.CREDENTIAL=@FILE` or `GRANT.CREDENTIAL.MEMBER=@FILE`.
    fn give(&mut self, text: &str) -> Result<(), String> {
        let shape = || format!("`--input {text}` is not GRANT.CREDENTIAL=@FILE");
        let (what, file) = text.split_once("=@").filter(|(_, file)| !file.is_empty()).ok_or_else(shape)?;
        let mut parts = what.split('.');
        let (Some(grant), Some(credential), member, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(shape());
        };
        if !is_name(credential) {
            return Err(shape());
        }
        self.check_asked(grant, text)?;
        let input = Input::read(Path::new(file), member).map_err(|fault| format!("{file}: {fault}"))?;
        match self.inputs.insert((grant.to_owned(), credential.to_owned()), input) {
            None => Ok(()),
            Some(_) => Err(format!("`{grant}.{credential}` is given two inputs")),
        }
    }

    fn check_asked(&self, grant: &str, text: &str) -> Result<(), String> {
        let is_asked = self.grants.iter().any(|each| each == grant);
        is_asked
            .then_some(())
            .ok_or_else(|| format!("`{text}` is about the grant `{grant}`, which is not asked for"))
    }
}

impl clap::Args for Ask {
    fn augment_args(command: clap::Command) -> clap::Command {
        Written::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Written::augment_args_for_update(command)
    }
}

impl clap::FromArgMatches for Ask {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Self::read(Written::from_arg_matches(matches)?)
            .map_err(|fault| clap::Error::raw(ErrorKind::ValueValidation, format!("{fault}\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn check_grants(grants: &[String]) -> Result<(), String> {
    if grants.len() > MOST_GRANTS {
        return Err(format!("{} grants, and one exchange has {MOST_GRANTS} at most", grants.len()));
    }
    let mut seen = BTreeSet::new();
    for grant in grants {
        if !is_name(grant) {
            return Err(format!("`{grant}` is no grant's name: those have a-z, 0-9 and hyphens only"));
        }
        if !seen.insert(grant) {
            return Err(format!("the grant `{grant}` is named twice"));
        }
    }
    Ok(())
}

impl Input {
    fn read(path: &Path, member: Option<&str>) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let limit = MOST_INPUT_BYTES as u64 + 1;
        let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        read.map_err(|fault| fault.to_string())?;
        Self::of(&bytes, member)
    }

    fn of(bytes: &[u8], member: Option<&str>) -> Result<Self, String> {
        if bytes.len() > MOST_INPUT_BYTES {
            return Err("it has more than 16 KiB, which no input has".to_owned());
        }
        let text = std::str::from_utf8(bytes).ok().map(str::trim).filter(|text| !text.is_empty());
        // Sent by mistake, it would have to be replaced.
        if text.is_some_and(|text| text.contains("PRIVATE KEY-----")) {
            return Err("it holds a private key, which never leaves this machine".to_owned());
        }
        let seen = text.and_then(seen_in);
        let digest = digest(bytes, text);
        let member = match (member, seen) {
            (Some("csr"), _) | (None, Some("csr")) => "csr",
            (Some("public_key"), _) | (None, Some("public_key")) => "public_key",
            (Some("input"), _) => "input",
            (Some(other), _) => return Err(format!("`{other}` is none of csr, public_key and input")),
            (None, _) if digest.is_some() => "input",
            (None, _) => {
                let known = "a certificate request (PEM), an SSH public key or a digest";
                return Err(format!("it shows no sign of {known}; say .csr, .public_key or .input"));
            }
        };
        let text = if member == "input" { digest } else { text.map(str::to_owned) };
        match text {
            Some(text) => Ok(Self { member, text }),
            None if member == "input" => {
                Err("it is no SHA-1 or SHA-2 digest, in base64, in hex or as its bytes".to_owned())
            }
            None => Err("it holds no text".to_owned()),
        }
    }
}

/// Which text a file shows itself to be.
fn seen_in(text: &str) -> Option<&'static str> {
    let first = text.lines().next().unwrap_or_default();
    if matches!(first, "-----BEGIN CERTIFICATE REQUEST-----" | "-----BEGIN NEW CERTIFICATE REQUEST-----") {
        return Some("csr");
    }
    // RFC 4253 section 6.6 and what OpenSSH adds to it.
    let is_key = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| first.starts_with(kind));
    is_key.then_some("public_key")
}

/// A digest as the API takes it, in base64. Hex comes first: that of SHA-256 is also base64 of as many bytes as SHA-384
/// has, and would be signed as something else.
fn digest(bytes: &[u8], text: Option<&str>) -> Option<String> {
    let fits = |digest: &Vec<u8>| DIGEST_BYTES.contains(&digest.len());
    let base64 = || text.and_then(|text| STANDARD.decode(text).ok()).filter(fits);
    let found = text.and_then(of_hex).filter(fits).or_else(base64);
    found.or_else(|| Some(bytes.to_vec()).filter(fits)).map(|digest| STANDARD.encode(digest))
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| u8::try_from(char::from(*byte).to_digit(16)?).ok();
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? * 16 + digit(low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use serde_json::json;

    use super::*;

    fn ask(arguments: &[&str]) -> Result<Ask, String> {
        let command = Ask::augment_args(clap::Command::new("ask").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|fault| fault.to_string())?;
        Ask::from_arg_matches(&matches).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_asked_is_what_the_api_takes() {
        assert_eq!(ask(&["deploy"]).unwrap().body(), json!({ "grants": [{ "name": "deploy" }] }));
        let narrowed =
            ["a", "b", "--credential", "db", "--credential", "b.aws", "--ttl", "10m", "--reason", "why"];
        let expected = json!({
            "grants": [
                { "name": "a", "credentials": ["db"], "ttl_seconds": 600 },
                { "name": "b", "credentials": ["db", "aws"], "ttl_seconds": 600 },
            ],
            "reason": "why",
        });
        assert_eq!(ask(&narrowed).unwrap().body(), expected);
        // Narrowed for one grant, the other is whole.
        let expected = json!({ "grants": [{ "name": "a" }, { "name": "b", "credentials": ["aws"] }] });
        assert_eq!(ask(&["a", "b", "--credential", "b.aws"]).unwrap().body(), expected);
    }

    #[test]
    fn what_no_broker_would_take_is_said_before_it_is_asked() {
        let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let long = "x".repeat(257);
        for (arguments, due) in [
            (&nine[..], "8 at most"),
            (&["a", "a"], "named twice"),
            (&["No_Name"], "no grant's name"),
            (&["a", "--credential", "x.db"], "not asked for"),
            (&["a", "--credential", "a.b.c"], "neither NAME nor GRANT.NAME"),
            (&["a", "--credential", "db", "--credential", "a.db"], "named twice"),
            (&["a", "--ttl", "10"], "no duration"),
            (&["a", "--ttl", "0s"], "no duration"),
            (&["a", "--reason", &long], "256 characters"),
            (&["a", "--input", "a.cert=csr.pem"], "GRANT.CREDENTIAL=@FILE"),
            (&["a", "--input", "a=@csr.pem"], "GRANT.CREDENTIAL=@FILE"),
            (&["a", "--input", "b.cert=@csr.pem"], "not asked for"),
            (&["a", "--input", "a.cert=@/nowhere/csr.pem"], "/nowhere/csr.pem: No such file"),
        ] {
            let told = ask(arguments).unwrap_err();
            assert!(told.contains(due), "{arguments:?}: {told}");
        }
    }

    #[test]
    fn a_file_shows_which_input_it_is() {
        let csr = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
        let digest = STANDARD.encode([7; 32]);
        let input = |bytes: &[u8], member| Input::of(bytes, member).map(|input| (input.member, input.text));
        assert_eq!(input(csr.as_bytes(), None), Ok(("csr", csr.trim().to_owned())));
        assert_eq!(
            input(b"ssh-ed25519 AAAA me\n", None),
            Ok(("public_key", "ssh-ed25519 AAAA me".to_owned()))
        );
        assert_eq!(input(format!("{digest}\n").as_bytes(), None), Ok(("input", digest.clone())));
        assert_eq!(input(&[7; 32], None), Ok(("input", digest.clone())), "32 bytes are a digest as it is");
        assert_eq!(
            input(b"anything", Some("input")).unwrap_err().split(',').next(),
            Some("it is no SHA-1 or SHA-2 digest")
        );
        let hex = "07".repeat(32);
        assert_eq!(
            input(hex.as_bytes(), None),
            Ok(("input", digest)),
            "hex of SHA-256 is no base64 of SHA-384"
        );
        assert_eq!(
            input(csr.as_bytes(), Some("public_key")).unwrap().0,
            "public_key",
            "who says so is believed"
        );
    }

    #[test]
    fn a_private_key_is_never_sent() {
        for kind in ["RSA ", "EC ", "OPENSSH ", ""] {
            let key = format!("-----BEGIN {kind}PRIVATE KEY-----\nMII\n-----END {kind}PRIVATE KEY-----\n");
            for member in [None, Some("csr"), Some("input")] {
                assert!(Input::of(key.as_bytes(), member).unwrap_err().contains("private key"), "{kind}");
            }
        }
        assert!(Input::of(b"rubbish", None).unwrap_err().contains("say .csr"));
        assert!(Input::of(b"ssh-rsa A", Some("key")).unwrap_err().contains("none of"));
        assert!(Input::of(&[b'x'; 16 * 1024 + 1], None).unwrap_err().contains("16 KiB"));
    }
}

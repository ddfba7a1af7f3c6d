//! `backends: { NAME: { aws: … } }`: a connection to AWS, and by what roles are assumed there.

use std::time::Duration;

use super::read::Folder;
use crate::{
    adapters::{
        http_client::read_url,
        mint::{AwsSettings, aws::Way},
    },
    kernel::{
        assertion::AWS_AUDIENCE,
        policy::yaml::{Fields, Findings, Node},
    },
};

/// The settings of one connection.
pub(super) fn settings(
    findings: &mut Findings<'_>,
    (name, node): (&str, &Node),
    folder: &Folder,
) -> Option<AwsSettings> {
    let mut fields = findings.fields(node)?;
    let region = fields.require(findings, "region").and_then(|node| region(findings, node));
    let fips = fields.take("fips").map(|node| (node, findings.boolean(node)));
    let endpoint = fields.take("endpoint").map(|node| endpoint(findings, node));
    let ca_file = fields.take("ca_file").map(|node| folder.path(findings, node));
    let timeout = fields.take("timeout").map(|node| timeout(findings, node));
    let way = way(findings, &mut fields);
    if let (Some((node, Some(true))), true) = (&fips, endpoint.is_some()) {
        let message = "`endpoint` says already which host is asked";
        findings.at(
            node,
            "aws-endpoint",
            message,
            "name the FIPS host in `endpoint`, or leave `endpoint` out",
        );
    }
    fields.finish(findings);
    Some(AwsSettings {
        name: name.to_owned(),
        region: region?,
        fips: fips.map_or(Some(false), |(_, read)| read)?,
        endpoint: endpoint.map_or(Some(None), |read| read.map(Some))?,
        ca_file: ca_file.map_or(Some(None), |read| read.map(Some))?,
        way: way?,
        timeout: timeout.unwrap_or(Some(DEFAULT_TIMEOUT))?,
    })
}

/// The region; it becomes a part of a host's name.
fn region(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let parts: Vec<&str> = text.split('-').collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_region = match parts.as_slice() {
        [partition, middle @ .., number] => {
            is_word(partition)
                && !middle.is_empty()
                && middle.iter().all(is_word)
                && matches!(number.as_bytes(), [b'1'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'])
        }
        [] | [_] => false,
    };
    if !is_region || text.len() > MOST_REGION_BYTES {
        let message = format!("`{text}` is no region");
        findings.at(node, "aws-region", message, "write the region's code, such as eu-west-2");
        return None;
    }
    Some(text.to_owned())
}

/// Another address of STS.
fn endpoint(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let remedy = "write an https address without path, such as https://vpce-….sts.eu-west-2.vpce.amazonaws.com; http is for \
                  a literal loopback address only";
    // An endpoint of a private network is what this is for.
    match read_url(text, true) {
        Err(fault) => {
            findings.at(node, "url", format!("`{text}`: {fault}"), remedy);
            None
        }
        Ok(url) if url.path() != "/" || url.query().is_some() => {
            findings.at(node, "url", format!("`{text}` has a path or a query"), remedy);
            None
        }
        Ok(_) if text.trim_end_matches('/').eq_ignore_ascii_case(GLOBAL_HOST) => {
            let message =
                "the global host gives sessions that later regions do not take, and answers from far away";
            findings.at(
                node,
                "aws-endpoint",
                message,
                "leave `endpoint` out; the region's own host is asked then",
            );
            None
        }
        Ok(_) => Some(text.to_owned()),
    }
}

fn timeout(findings: &mut Findings<'_>, node: &Node) -> Option<Duration> {
    let read = findings.duration(node)?;
    if !(LEAST_TIMEOUT..=MOST_TIMEOUT).contains(&read) {
        let message = "a call to STS takes from 1 s to 30 s";
        findings.at(node, "out-of-range", message, "write a duration from 1s to 30s");
        return None;
    }
    Some(read)
}

/// `audience` belongs to the one way, `credentials` and `external_id` to the other.
fn way(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Option<Way> {
    let audience = fields.take("audience");
    let external_id = fields.take_entry("external_id");
    match fields.take("credentials") {
        None => {
            if let Some((key, _)) = external_id {
                let message = "only a role that is assumed with credentials has an external id";
                findings.at_key(
                    key,
                    "aws-credentials",
                    message,
                    "add `credentials: ambient`, or take this out",
                );
                return None;
            }
            let audience =
                audience.map_or(Some(AWS_AUDIENCE.to_owned()), |node| audience_of(findings, node))?;
            Some(Way::WebIdentity { audience })
        }
        Some(node) => {
            if findings.filled(node)? != "ambient" {
                let message = "the broker takes no key of AWS from its configuration";
                let remedy = "write `credentials: ambient` for those of environment, container or instance, or leave it \
                              out: then roles are assumed with our own assertions";
                findings.at(node, "aws-credentials", message, remedy);
                return None;
            }
            if let Some(node) = audience {
                let message = "no assertion is made where roles are assumed with credentials";
                findings.at(node, "aws-credentials", message, "take out `audience` or `credentials`");
                return None;
            }
            let external_id =
                external_id.map_or(Some(None), |(_, node)| external_id_of(findings, node).map(Some))?;
            Some(Way::Ambient { external_id })
        }
    }
}

fn audience_of(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    if text.len() > 255 || text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        let message = "an OIDC provider of AWS takes client ids of at most 255 characters, without spaces";
        findings.at(
            node,
            "aws-audience",
            message,
            "write a client id of the provider, such as sts.amazonaws.com",
        );
        return None;
    }
    Some(text.to_owned())
}

fn external_id_of(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if !(2..=1224).contains(&text.len()) || !text.bytes().all(fits) {
        let message = "this is no external id";
        let remedy =
            "write 2 to 1224 letters, digits and _ + = , . @ : / -, as the role's trust policy has them";
        findings.at(node, "aws-external-id", message, remedy);
        return None;
    }
    Some(text.to_owned())
}

const GLOBAL_HOST: &str = "https://sts.amazonaws.com";
const MOST_REGION_BYTES: usize = 32;
/// A regional STS answers in less than half a second; the exchange's own deadline leaves room for a second try.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
const MOST_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        cli::config::{Backend, Config, environment::Environment},
        kernel::policy::Finding,
    };

    const FILE: &str = include_str!("../init/hallpass.yaml");

    fn read(aws: &str) -> Result<AwsSettings, Vec<Finding>> {
        let text = format!("{FILE}\nbackends: {{ cloud: {{ aws: {aws} }} }}\n");
        let config = Config::read(
            Path::new("/etc/hallpass/hallpass.yaml"),
            text.as_bytes(),
            &Environment::new(|_: &str| None),
        )?;
        match &config.backends["cloud"] {
            Backend::Aws { settings, .. } => Ok((**settings).clone()),
            Backend::Vault { .. } => panic!("it is AWS"),
        }
    }

    #[test]
    fn a_region_is_all_that_a_connection_needs() {
        let settings = read("{ region: eu-west-2 }").ok().unwrap();
        assert_eq!(settings.name, "cloud");
        assert_eq!(settings.region, "eu-west-2");
        assert_eq!(settings.way, Way::WebIdentity { audience: AWS_AUDIENCE.to_owned() });
        assert_eq!((settings.fips, &settings.endpoint), (false, &None));
        for region in ["us-gov-west-1", "us-isob-east-1", "ap-southeast-5", "eusc-de-east-1"] {
            assert_eq!(read(&format!("{{ region: {region} }}")).ok().unwrap().region, region);
        }
    }

    #[test]
    fn everything_that_an_operator_can_say_is_read() {
        let settings = read(
            "{ region: us-gov-west-1, fips: true, ca_file: corp.pem, timeout: 10s, credentials: ambient, external_id: x/1 }",
        );
        let settings = settings.ok().unwrap();
        assert!(settings.fips);
        assert_eq!(settings.ca_file.as_deref(), Some(Path::new("/etc/hallpass/corp.pem")));
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.way, Way::Ambient { external_id: Some("x/1".to_owned()) });
        let vpc = "https://vpce-1.sts.eu-west-2.vpce.amazonaws.com";
        let settings = read(&format!("{{ region: eu-west-2, endpoint: \"{vpc}\", audience: ours }}"));
        let settings = settings.ok().unwrap();
        assert_eq!(settings.endpoint.as_deref(), Some(vpc));
        assert_eq!(settings.way, Way::WebIdentity { audience: "ours".to_owned() });
    }

    #[test]
    fn what_cannot_be_meant_is_a_finding_at_its_place() {
        let region = "region: eu-west-2";
        for (aws, code, at) in [
            ("{}".to_owned(), "missing-key", "{}"),
            ("{ region: london }".to_owned(), "aws-region", "london"),
            ("{ region: eu-west-2.evil.test }".to_owned(), "aws-region", "eu-west-2.evil.test"),
            ("{ region: eu-west-0 }".to_owned(), "aws-region", "eu-west-0"),
            (format!("{{ {region}, fips: true, endpoint: \"https://x.test\" }}"), "aws-endpoint", "true"),
            (
                format!("{{ {region}, endpoint: \"https://sts.amazonaws.com/\" }}"),
                "aws-endpoint",
                "\"https://sts",
            ),
            (format!("{{ {region}, endpoint: \"http://sts.test\" }}"), "url", "\"http://sts"),
            (format!("{{ {region}, endpoint: \"https://x.test/sts\" }}"), "url", "\"https://x"),
            (format!("{{ {region}, timeout: 31s }}"), "out-of-range", "31s"),
            (format!("{{ {region}, external_id: x1 }}"), "aws-credentials", "external_id"),
            (format!("{{ {region}, credentials: AKIAEXAMPLE }}"), "aws-credentials", "AKIAEXAMPLE"),
            (format!("{{ {region}, credentials: ambient, audience: x }}"), "aws-credentials", "x }"),
            (
                format!("{{ {region}, credentials: ambient, external_id: \"a b\" }}"),
                "aws-external-id",
                "\"a b\"",
            ),
            (format!("{{ {region}, audience: \"a b\" }}"), "aws-audience", "\"a b\""),
            (format!("{{ {region}, access_key_id: AKIA }}"), "unknown-key", "access_key_id"),
        ] {
            let found = read(&aws).err().unwrap_or_else(|| panic!("{aws} was accepted"));
            let line = format!("backends: {{ cloud: {{ aws: {aws} }} }}");
            let told: Vec<(&str, &str)> =
                found.iter().map(|finding| (finding.code, &line[finding.column - 1..])).collect();
            assert!(told.iter().any(|(each, rest)| *each == code && rest.starts_with(at)), "{aws}: {told:?}");
        }
    }

    #[test]
    fn no_assertion_is_for_this_broker_itself_under_any_of_its_names() {
        let public = FILE.lines().find_map(|line| line.trim().strip_prefix("url: ")).unwrap();
        let public = public.split_whitespace().next().unwrap().trim_matches('"');
        for audience in [public.to_owned(), format!("{}/", public.to_uppercase())] {
            let found = read(&format!("{{ region: eu-west-2, audience: \"{audience}\" }}")).err().unwrap();
            let [finding] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!(finding.code, "aws-audience");
            assert!(finding.line > 1 && finding.message.contains("this broker itself"), "{finding}");
        }
    }

    #[test]
    fn a_backend_is_of_one_kind() {
        let text = format!("{FILE}\nbackends: {{ both: {{ aws: {{ region: eu-west-2 }}, vault: {{}} }} }}\n");
        let file = Path::new("/etc/hallpass/hallpass.yaml");
        let found = Config::read(file, text.as_bytes(), &Environment::new(|_: &str| None)).err().unwrap();
        assert!(found.iter().any(|finding| finding.code == "two-kinds"), "{found:?}");
    }
}

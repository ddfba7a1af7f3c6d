//! The connections to AWS: where each leads and whether an STS answers there, what its clock says, and who the broker
//! is to it. Whether it can fetch the keys of our assertions is looked at beside the assertions.

use jiff::{SignedDuration, Timestamp};

use super::Look;
use crate::{
    adapters::mint::{
        AwsSettings,
        aws::{
            Way,
            probe::{CallerFault, Probe, Reached},
        },
    },
    broker::Clock,
    cli::{
        check,
        config::{Backend as Configured, Config},
        exit::chain,
    },
    kernel::policy::{
        PolicySet,
        target::{Backend, Target},
    },
};

const PART: &str = "backends";
const CLOCK: &str = "clock";
/// `Date` is told to the second, and an answer takes its time.
const CLOSE: SignedDuration = SignedDuration::from_secs(5);
/// An assertion for AWS holds for two minutes; half of that is left for a clock that is off.
const OF_ASSERTIONS: SignedDuration = SignedDuration::from_secs(60);
/// AWS, "Signature Version 4 request": a signature is good within five minutes of the service's time.
const OF_SIGNATURES: SignedDuration = SignedDuration::from_secs(300);

pub(super) async fn look(config: &Config) -> Vec<Look> {
    let connections = connections(config);
    let mut looks = Vec::new();
    for settings in &connections {
        looks.extend(look_at(settings).await);
    }
    // Where the set does not load, that is told under its own part.
    if let Ok(loaded) = check::policies(config) {
        looks.extend(partitions(&loaded.set, &connections));
    }
    looks
}

/// The configured connections, by name.
pub(super) fn connections(config: &Config) -> Vec<&AwsSettings> {
    config
        .backends
        .values()
        .filter_map(|backend| match backend {
            Configured::Aws { settings, .. } => Some(&**settings),
            Configured::Vault { .. } => None,
        })
        .collect()
}

async fn look_at(settings: &AwsSettings) -> Vec<Look> {
    let AwsSettings { name, region, fips, endpoint, way, .. } = settings;
    let probe = match Probe::new(settings) {
        Ok(probe) => probe,
        Err(fault) => return vec![Look::failing(PART, format!("{name}: {fault}"), "look at `ca_file`")],
    };
    let Some(address) = probe.address().await else {
        let found = format!("{name}: no STS is known for the region {region}, fips: {fips}");
        return vec![Look::failing(PART, found, "mend `region`, or name the host by `endpoint`")];
    };
    let kind = if endpoint.is_some() {
        "named by `endpoint`, in place of the region's own"
    } else if *fips {
        "the region's FIPS host"
    } else {
        "the region's own"
    };
    let said = format!("{name}: region {region}, STS at {address} ({kind})");
    let (is_there, mut looks) = match probe.reach(&address).await {
        Err(fault) => {
            let advice = if *fips && endpoint.is_none() {
                "look at the network and at `ca_file`; not every region has a FIPS host"
            } else {
                "look at the network, at `endpoint` and at `ca_file`"
            };
            (false, vec![Look::failing(PART, format!("{said}: {}", chain(&fault)), advice)])
        }
        Ok(reached) => reached_looks(settings, &said, reached),
    };
    match way {
        Way::WebIdentity { audience } => {
            let found =
                format!("{name}: roles are assumed by our own assertions, for the audience {audience}");
            looks.push(Look::fine(PART, found));
        }
        Way::Ambient { .. } if is_there => looks.push(caller(name, probe.caller().await)),
        Way::Ambient { .. } => {}
    }
    looks
}

/// What an answer to nobody says. A service that takes a call without a signature, sends elsewhere or fails is no healthy STS;
/// one that takes it may still say whose the credentials are.
fn reached_looks(settings: &AwsSettings, said: &str, reached: Reached) -> (bool, Vec<Look>) {
    let Reached { status, date } = reached;
    if !(400..500).contains(&status) {
        let found = format!(
            "{said}: it answers a call without signature with {status}, where a healthy STS refuses it"
        );
        let advice = "look at `endpoint`, and at what stands between this machine and AWS";
        return (status == 200, vec![Look::failing(PART, found, advice)]);
    }
    let mut looks = vec![Look::fine(PART, format!("{said} answers"))];
    looks.extend(date.map(|theirs| clock(settings, Clock::System.now(), theirs)));
    (true, looks)
}

/// Compares clocks: an assertion is dated by ours and judged by theirs, and so is a signature.
fn clock(settings: &AwsSettings, ours: Timestamp, theirs: Timestamp) -> Look {
    let (most, what) = match settings.way {
        Way::Ambient { .. } => (OF_SIGNATURES, "signatures"),
        Way::WebIdentity { .. } => (OF_ASSERTIONS, "assertions"),
    };
    let apart = ours.duration_since(theirs).abs();
    let found = format!("{} s from that of {}", apart.as_secs(), settings.name);
    let advice = "have this machine's clock follow a time server";
    if apart <= CLOSE {
        Look::fine(CLOCK, found)
    } else if apart <= most {
        Look::warning(CLOCK, found, advice)
    } else {
        Look::failing(CLOCK, format!("{found}: it refuses our {what}"), advice)
    }
}

fn caller(name: &str, found: Result<String, CallerFault>) -> Look {
    let CallerFault { reason, said } = match found {
        Ok(arn) => return Look::fine(PART, format!("{name}: the broker calls it as {arn}")),
        Err(fault) => fault,
    };
    let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
    let advice = if reason == "no-ambient-credentials" {
        "give the broker a role of its container or instance, or set AWS_ACCESS_KEY_ID and its fellows in its environment; \
         or leave `credentials` out, so that roles are assumed by assertions"
    } else {
        "look at the credentials in the broker's environment: whose they are, and whether they have ended"
    };
    Look::failing(PART, format!("{name}: the broker is nobody to it: {reason}{said}"), advice)
}

/// Roles of another partition than the region's, which its STS cannot know.
fn partitions(set: &PolicySet, connections: &[&AwsSettings]) -> Vec<Look> {
    let mut looks = Vec::new();
    for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
        for (name, credential) in &grant.credentials {
            let Target::Aws(target) = &credential.target.0 else { continue };
            let connection = match &target.backend {
                Backend::Named(named) => connections.iter().find(|each| each.name == **named),
                Backend::Unnamed => connections.first().filter(|_| connections.len() == 1),
                Backend::BuiltIn => None,
            };
            let Some(AwsSettings { region, .. }) = connection else { continue };
            let due = partition(region);
            let is = target.role_arn.split(':').nth(1).unwrap_or_default();
            if due.is_some_and(|due| due != is) {
                let found = format!(
                    "credential `{name}` of grant `{}` has the role {}, which is not of the partition of {region}",
                    grant.name, target.role_arn
                );
                looks.push(Look::failing(PART, found, "mend the ARN, or name a backend of its partition"));
            }
        }
    }
    looks
}

/// The partition of a region; `None` of one that may be newer than this list (AWS, "Partitions", November 2026).
fn partition(region: &str) -> Option<&'static str> {
    match region.split('-').collect::<Vec<_>>().as_slice() {
        ["cn", ..] => Some("aws-cn"),
        ["us", "gov", ..] => Some("aws-us-gov"),
        ["af" | "ap" | "ca" | "eu" | "il" | "me" | "mx" | "sa" | "us", _, _] => Some("aws"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::partition;

    #[test]
    fn region_says_its_partition_and_an_unknown_one_says_nothing() {
        for (region, due) in [
            ("eu-west-2", Some("aws")),
            ("us-east-1", Some("aws")),
            ("us-gov-west-1", Some("aws-us-gov")),
            ("cn-north-1", Some("aws-cn")),
            ("us-isob-east-1", None),
            ("eusc-de-east-1", None),
        ] {
            assert_eq!(partition(region), due, "{region}");
        }
    }
}

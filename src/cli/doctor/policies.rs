//! The policies: whether the set loads under this configuration, and whether what it names is there.

use tokio::runtime::Runtime;

use super::Look;
use crate::{
    cli::{check, config::Config, installation},
    kernel::policy::{PolicySet, load::Loaded, target::Target},
};

const PART: &str = "policies";

pub(super) fn look(config: &Config, runtime: &Runtime) -> Vec<Look> {
    let Loaded { set, warnings } = match check::policies(config) {
        Ok(loaded) => loaded,
        Err(failure) => {
            return vec![Look::failing(
                PART,
                failure.message,
                "run `hallpass policy check`, and mend what it names",
            )];
        }
    };
    let grants = set.grants.len();
    let mut looks = vec![Look::fine(PART, format!("{grants} grants load, digest {}", set.digest))];
    let unmeant = warnings.iter().map(|finding| (finding.message.clone(), finding.remedy.clone()));
    looks.extend(unmeant.map(|(found, advice)| Look::warning(PART, found, advice)));
    let of_both = check::warnings(config, &set).into_iter();
    looks.extend(of_both.map(|found| Look::warning(PART, found, "run `hallpass config check`")));
    looks.extend(missing_secrets(config, &set, runtime));
    looks
}

/// Secrets that grants deliver and nobody has set: their exchanges are 502 (contract: section 12).
fn missing_secrets(config: &Config, set: &PolicySet, runtime: &Runtime) -> Vec<Look> {
    // Where the database cannot be read, that was told already.
    let Ok(store) = installation::inspect_as_it_is(config) else { return Vec::new() };
    let Ok(known) = runtime.block_on(store.list_secrets()) else { return Vec::new() };
    let mut looks = Vec::new();
    for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
        for credential in grant.credentials.values() {
            let Target::Sealed { secret } = &credential.target.0 else { continue };
            if known.iter().any(|each| each.name == *secret) {
                continue;
            }
            let found =
                format!("grant `{}` delivers the secret `{secret}`, which nobody has set", grant.name);
            let advice = format!("run `hallpass secret set {secret}` with the value on stdin");
            looks.push(Look::failing(PART, found, advice));
        }
    }
    looks
}

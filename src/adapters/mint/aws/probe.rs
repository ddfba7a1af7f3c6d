//! A look at one connection for an operator: where it leads, whether an STS answers there, what its clock says, and as
//! whom the broker would call it. Nothing is assumed, and nothing changes anywhere.

use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use jiff::Timestamp;

use super::{AwsSettings, ClientFault, fault::Fault, sts::Sts};

/// A connection to look at.
pub struct Probe {
    sts: Sts,
}

/// What answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The status of its answer to a call that nobody signed; an STS refuses that with one of the client's faults.
    pub status: u16,
    /// Its clock, to the second; absent where it does not say.
    pub date: Option<Timestamp>,
}

/// Why nothing answered: no address, no connection, no TLS, or no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
pub struct Unreached(#[from] reqwest::Error);

/// Why the broker is nobody there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerFault {
    /// The word that the ledger would have.
    pub reason: &'static str,
    /// What the service said, one line, cut.
    pub said: Option<String>,
}

impl Probe {
    /// Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`ClientFault`].
    pub fn new(settings: &AwsSettings) -> Result<Self, ClientFault> {
        Ok(Self { sts: Sts::new(settings)? })
    }

    /// The address that is asked, by the SDK's own rules; `None` where they know none for these settings.
    pub async fn address(&self) -> Option<String> {
        let AwsSettings { region, fips, endpoint, .. } = self.sts.settings();
        let params = Params::builder().region(region).use_fips(*fips).set_endpoint(endpoint.clone());
        let resolved = DefaultResolver::new().resolve_endpoint(&params.build().ok()?).await.ok()?;
        Some(resolved.url().to_owned())
    }

    /// Asks without a signature who the caller is: nobody is, and whoever says so is there.
    ///
    /// # Errors
    ///
    /// [`Unreached`].
    pub async fn reach(&self, address: &str) -> Result<Reached, Unreached> {
        Ok(self.sts.wire().knock(address).await?)
    }

    /// As whom the broker calls, with the credentials around it: an ARN.
    ///
    /// # Errors
    ///
    /// [`CallerFault`].
    pub async fn caller(&self) -> Result<String, CallerFault> {
        let found = self.sts.caller().await.map_err(Fault::into_parts);
        found.map_err(|(reason, said)| CallerFault { reason, said })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Way, *};

    async fn address(region: &str, fips: bool, endpoint: Option<&str>) -> Option<String> {
        let settings = AwsSettings {
            name: "aws".to_owned(),
            region: region.to_owned(),
            fips,
            endpoint: endpoint.map(str::to_owned),
            ca_file: None,
            way: Way::Ambient { external_id: None },
            timeout: Duration::from_secs(1),
        };
        Probe::new(&settings).unwrap().address().await
    }

    #[tokio::test]
    async fn address_is_the_regions_own_unless_something_else_is_said() {
        for (region, fips, endpoint, due) in [
            ("eu-west-2", false, None, "https://sts.eu-west-2.amazonaws.com"),
            ("us-east-1", false, None, "https://sts.us-east-1.amazonaws.com"),
            ("us-east-1", true, None, "https://sts-fips.us-east-1.amazonaws.com"),
            ("us-gov-west-1", true, None, "https://sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", false, None, "https://sts.cn-north-1.amazonaws.com.cn"),
            ("eu-west-2", false, Some("https://sts.test"), "https://sts.test"),
        ] {
            let found = address(region, fips, endpoint).await;
            assert_eq!(found.as_deref().map(|found| found.trim_end_matches('/')), Some(due), "{region}");
        }
    }
}

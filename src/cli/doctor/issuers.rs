//! The issuers: whether each answers with keys that can be used, and what its clock says of ours.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use super::Look;
use crate::{
    adapters::http_client::{HttpClient, Reach, read_url},
    broker::{Clock, ports::KeySource as _},
    cli::{
        config::{Config, Issuer, IssuerKeysFrom},
        exit::chain,
        installation,
    },
    kernel::name::IssuerName,
};

/// Discovery documents are small.
const MOST_BYTES: usize = 64 * 1024;
/// `Date` is told to the second, and an answer takes its time.
const CLOSE: SignedDuration = SignedDuration::from_secs(5);

pub(super) async fn look(config: &Config) -> Vec<Look> {
    if config.issuers.is_empty() {
        let advice = "name a CI system under `issuers`, and in policies/issuers/";
        return vec![Look::warning("issuers", "no issuer is trusted, so no job gets anything", advice)];
    }
    let keys = match installation::issuer_keys(config, Arc::new(|| Clock::System.now())) {
        Ok(keys) => keys,
        Err(failure) => return vec![Look::failing("issuers", failure.message, "mend the configuration")],
    };
    keys.refresh().await;
    let mut looks = Vec::new();
    for standing in keys.standing() {
        let name = &standing.issuer;
        match standing.fault {
            Some(fault) => {
                let found = format!("{name}: its keys cannot be had: {fault}");
                looks.push(Look::failing(
                    "issuers",
                    found,
                    "look at its URL, at this machine's network and authorities",
                ));
            }
            None => looks.push(Look::fine("issuers", format!("{name}: its keys are here"))),
        }
        let warnings = standing.warnings.into_iter();
        looks.extend(
            warnings.map(|warning| Look::warning("issuers", format!("{name}: {warning}"), "look into it")),
        );
    }
    for (name, issuer) in &config.issuers {
        looks.extend(clock(name, issuer, config.deadlines.issuer, config.limits.clock_leeway).await);
    }
    looks
}

/// Compares clocks with an issuer that can be asked: tokens are judged by ours, and dated by theirs.
async fn clock(name: &IssuerName, issuer: &Issuer, deadline: Duration, leeway: Duration) -> Option<Look> {
    if issuer.keys != IssuerKeysFrom::Discovery {
        return None;
    }
    let authorities = issuer.ca_file.as_ref().map(installation::read).transpose().ok()?;
    let allow_private_addresses = issuer.allow_private_addresses;
    let client = if issuer.url.starts_with("http:") {
        HttpClient::loopback(deadline)
    } else {
        let ca_pem = authorities.as_ref().map(|pem| pem.expose());
        HttpClient::new(Reach { ca_pem, allow_private_addresses, deadline })
    };
    let url = format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
    let url = read_url(&url, allow_private_addresses).ok()?;
    let document = match client {
        Ok(client) => client.fetch(&url, MOST_BYTES).await.ok()?,
        Err(fault) => return Some(Look::failing("clock", chain(&fault), "install certificate authorities")),
    };
    let theirs = document.date?;
    let apart = Clock::System.now().duration_since(theirs).abs();
    let found = format!("{} s from {name}'s", apart.as_secs());
    let advice = "have this machine's clock follow a time server";
    let leeway = SignedDuration::try_from(leeway).unwrap_or(SignedDuration::MAX);
    Some(if apart <= CLOSE {
        Look::fine("clock", found)
    } else if apart <= leeway {
        Look::warning("clock", found, advice)
    } else {
        Look::failing("clock", format!("{found}: good tokens are refused, or ended ones are not"), advice)
    })
}

//! Hallpass as its users meet it: the built binary, an installation that `hallpass init` made, real HTTP, real
//! tokens, real signals. The promises of the exchange (P1 to P5) have their named tests here.

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod backend_aws;
#[cfg(test)]
mod backend_vault;
#[cfg(test)]
mod client;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod credential_aws;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod doctor_aws;
#[cfg(test)]
mod emergency;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod exec_refresh;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod hardened;
#[cfg(test)]
mod independent_issuer;
#[cfg(test)]
mod independent_kubernetes;
#[cfg(test)]
mod independent_ledger;
#[cfg(test)]
mod independent_signers;
#[cfg(test)]
mod independent_sts;
#[cfg(test)]
mod independent_vault;
#[cfg(test)]
mod independent_verifier;
#[cfg(test)]
mod issuances;
#[cfg(test)]
mod keeping;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kubernetes_manifests;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod mixed_sets;
#[cfg(test)]
mod observe;
#[cfg(test)]
mod once;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod order;
#[cfg(test)]
mod otel;
#[cfg(test)]
mod own_issuer;
#[cfg(test)]
mod packaged;
#[cfg(test)]
mod platforms;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod policy_commands;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod postgres_kept;
#[cfg(test)]
mod postgres_keys;
#[cfg(test)]
mod postgres_older;
#[cfg(test)]
mod profiles;
#[cfg(test)]
mod publishing;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod record;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod removal;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod token;
#[cfg(test)]
mod vault_engines;
#[cfg(test)]
mod wiped;

//! Azure Pipelines: an endpoint of the job mints a token, always for Entra's audience. With a service connection the
//! token is that connection's, which is where Azure has approvals; without, it is the pipeline's.
//!
//! Source: azure-devops-docs, release notes of sprint 240; azure-identity, `azure_pipelines.py`; read in 2026.

use super::{
    environment::Environment,
    search::{Endpoint, Found, Method, Way, Wish, endpoint},
};

const URL: &str = "SYSTEM_OIDCREQUESTURI";
const BEARER: &str = "SYSTEM_ACCESSTOKEN";

pub(super) fn detect(environment: &Environment, wish: &Wish<'_>) -> Found {
    if !environment.says("TF_BUILD") {
        return Found::Declined("TF_BUILD is not true".to_owned());
    }
    let mut url = match endpoint(environment, URL) {
        Ok(url) => url,
        Err(why) => return Found::Withheld(why),
    };
    if environment.variable(BEARER).is_none() {
        return Found::Withheld(format!(
            "{BEARER} is not set: Azure gives it to a step only where it is mapped"
        ));
    }
    url.query_pairs_mut().append_pair("api-version", "7.1");
    let given = ["HALLPASS_SERVICE_CONNECTION", "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"];
    let given = given.into_iter().find_map(|name| environment.variable(name));
    if let Some(connection) = wish.service_connection.or(given) {
        url.query_pairs_mut().append_pair("serviceConnectionId", connection);
    }
    Found::Fired(Way::Request(Endpoint { method: Method::Post, url, bearer: BEARER, member: "oidcToken" }))
}

pub(super) fn setup(_: &str) -> String {
    "steps:\n\
     \x20 - script: hallpass ...\n\
     \x20   env:\n\
     \x20     SYSTEM_ACCESSTOKEN: $(System.AccessToken)\n\
     \x20     HALLPASS_SERVICE_CONNECTION: ID   # where the policy speaks of a service connection"
        .to_owned()
}

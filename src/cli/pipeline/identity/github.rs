//! GitHub Actions: the job asks an endpoint of its own for a token, as often as it likes and for any audience.
//!
//! Source: github/docs, `content/actions/reference/security/oidc.md`; the endpoint as `@actions/core` asks it.

use serde_json::Value;

use super::{
    environment::Environment,
    search::{Endpoint, Found, Method, Way, Wish, endpoint},
};

const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const BEARER: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

pub(super) fn detect(environment: &Environment, wish: &Wish<'_>) -> Found {
    if !environment.says("GITHUB_ACTIONS") {
        return Found::Declined("GITHUB_ACTIONS is not true".to_owned());
    }
    if environment.variable(URL).is_none() || environment.variable(BEARER).is_none() {
        return Found::Withheld(withheld(environment));
    }
    match endpoint(environment, URL) {
        Ok(mut url) => {
            url.query_pairs_mut().append_pair("audience", wish.audience);
            Found::Fired(Way::Request(Endpoint { method: Method::Get, url, bearer: BEARER, member: "value" }))
        }
        Err(why) => Found::Withheld(why),
    }
}

fn withheld(environment: &Environment) -> String {
    match fork(environment.event()) {
        Some(fork) => format!(
            "this run is of a pull request from the fork {fork}, and GitHub gives those no identity token, whatever \
             the workflow says; run the step where it is none: \
             `if: github.event.pull_request.head.repo.full_name == github.repository`"
        ),
        None => "the job lacks the permission `id-token: write`".to_owned(),
    }
}

/// The fork that a pull request comes from, by the event that started the run.
fn fork(event: Option<&Value>) -> Option<String> {
    let request = event?.get("pull_request")?;
    let repository = |side: &str| request.get(side)?.get("repo")?.get("full_name")?.as_str();
    match (repository("head"), repository("base")?) {
        (Some(head), base) if head.eq_ignore_ascii_case(base) => None,
        (Some(head), _) => Some(super::super::broker::shown(head)),
        // A fork that was deleted meanwhile.
        (None, _) => Some("that is gone".to_owned()),
    }
}

pub(super) fn setup(_: &str) -> String {
    "permissions:                # of the workflow or the job; a caller of a reusable workflow needs them too\n\
     \x20 id-token: write           # lets the job ask for its identity token\n\
     \x20 contents: read            # for actions/checkout: naming one permission takes away all that are not named"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fork_is_told_from_a_missing_permission() {
        let event = |head: Value| json!({ "pull_request": { "head": { "repo": head }, "base": { "repo": { "full_name": "acme/pay" } } } });
        let own = event(json!({ "full_name": "Acme/pay" }));
        let forked = event(json!({ "full_name": "mallory/pay" }));
        assert_eq!(fork(Some(&own)), None);
        assert_eq!(fork(Some(&forked)).as_deref(), Some("mallory/pay"));
        assert_eq!(fork(Some(&event(Value::Null))).as_deref(), Some("that is gone"));
        assert_eq!(fork(Some(&json!({ "ref": "refs/heads/main" }))), None);
        assert_eq!(fork(None), None);
        let environment = Environment::of(&[("GITHUB_ACTIONS", "true")]).with_event(forked);
        assert!(withheld(&environment).contains("mallory/pay"));
    }
}

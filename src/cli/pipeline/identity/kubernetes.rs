//! A pod of Kubernetes, such as of Tekton, Argo Workflows or Woodpecker: a service-account token that its volume
//! projects for our audience. The pod's own token, which is for the API server, is never looked at.
//!
//! Source: Kubernetes docs, "Projected volumes"; read in 2026.

use super::{
    environment::{Environment, PROJECTED_TOKEN},
    search::{Found, Way, Wish},
};

pub(super) fn detect(environment: &Environment, _: &Wish<'_>) -> Found {
    if environment.has_projected_token() {
        return Found::Fired(Way::File(PROJECTED_TOKEN.into()));
    }
    if environment.variable("KUBERNETES_SERVICE_HOST").is_none() {
        return Found::Declined(format!("there is no {PROJECTED_TOKEN}"));
    }
    Found::Withheld(format!("no token is projected to {PROJECTED_TOKEN}"))
}

pub(super) fn setup(audience: &str) -> String {
    format!(
        "spec:\n\
         \x20 containers:\n\
         \x20   - volumeMounts: [{{ name: hallpass, mountPath: /var/run/secrets/hallpass, readOnly: true }}]\n\
         \x20 volumes:\n\
         \x20   - name: hallpass\n\
         \x20     projected:\n\
         \x20       sources:\n\
         \x20         - serviceAccountToken: {{ audience: \"{audience}\", expirationSeconds: 600, path: token }}"
    )
}

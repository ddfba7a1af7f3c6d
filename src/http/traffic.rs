//! What is counted of requests: by listener, method, route, status and code, all from closed sets. A path as it was
//! sent, or a method that a client made up, is no label.

use std::sync::Arc;

use super::{
    openapi::{Listener, OPERATIONS},
    problem,
};
use crate::broker::{
    error::Code,
    metrics::{Counter, Durations, Exposition, Gauge, families},
};

/// The counts of both listeners.
#[derive(Debug)]
pub struct Traffic {
    kinds: Vec<Kind>,
    routes: Vec<Route>,
    in_flight: [Gauge; Listener::ALL.len()],
    shed: [[Counter; Shed::ALL.len()]; Listener::ALL.len()],
}

/// A status with the code that it tells of; no code where nothing was refused.
type Kind = (u16, Option<Code>);

#[derive(Debug)]
struct Route {
    listener: Listener,
    method: &'static str,
    path: &'static str,
    /// By the place of their kind; one more for what is of no known kind.
    answers: Vec<Counter>,
    times: Durations,
}

/// Why a request was turned away at the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shed {
    InFlight,
    SourceRate,
}

impl Shed {
    const ALL: [Self; 2] = [Self::InFlight, Self::SourceRate];

    fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::SourceRate => "source_rate",
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        let kinds = kinds();
        let mut names: Vec<(Listener, &str, &str)> = Vec::new();
        for operation in OPERATIONS {
            for listener in operation.listeners {
                names.push((*listener, operation.method, operation.path));
            }
        }
        for operation in OPERATIONS {
            for listener in operation.listeners {
                let other = (*listener, OTHER, operation.path);
                if !names.contains(&other) {
                    names.push(other);
                }
            }
        }
        names.extend(Listener::ALL.map(|listener| (listener, OTHER, NONE)));
        let route = |(listener, method, path)| Route {
            listener,
            method,
            path,
            answers: (0..=kinds.len()).map(|_| Counter::default()).collect(),
            times: Durations::empty(),
        };
        let routes = names.into_iter().map(route).collect();
        Self { kinds, routes, in_flight: Default::default(), shed: Default::default() }
    }
}

/// A request under way; it is no more when this is dropped, whether it was answered or its client went away.
pub(super) struct InFlight {
    traffic: Arc<Traffic>,
    listener: Listener,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.traffic.gauge(self.listener, -1);
    }
}

impl Traffic {
    /// A request began.
    pub(super) fn begin(self: &Arc<Self>, listener: Listener) -> InFlight {
        self.gauge(listener, 1);
        InFlight { traffic: Arc::clone(self), listener }
    }

    fn gauge(&self, listener: Listener, change: i64) {
        if let Some(gauge) = self.in_flight.get(listener as usize) {
            gauge.add(change);
        }
    }

    /// A request was turned away.
    pub(super) fn shed(&self, listener: Listener, why: Shed) {
        if let Some(counter) = self.shed.get(listener as usize).and_then(|all| all.get(why as usize)) {
            counter.count();
        }
    }

    /// A request to that route, if there is such, was answered.
    pub(super) fn answered(
        &self,
        (listener, method, route): (Listener, &str, Option<&str>),
        (status, code): (u16, Option<Code>),
        took: std::time::Duration,
    ) {
        let path = route.unwrap_or(NONE);
        let of = |method: &str| {
            self.routes
                .iter()
                .find(|each| each.listener == listener && each.path == path && each.method == method)
        };
        let Some(route) = of(method).or_else(|| of(OTHER)) else { return };
        let place = self.kinds.iter().position(|kind| *kind == (status, code));
        if let Some(counter) = route.answers.get(place.unwrap_or(self.kinds.len())) {
            counter.count();
        }
        route.times.took(took);
    }

    /// Writes them.
    pub(super) fn expose(&self, to: &mut Exposition) {
        to.family(&families::HTTP_REQUESTS);
        for route in &self.routes {
            let kinds = self.kinds.iter().map(|kind| Some(*kind)).chain([None]);
            for (kind, counter) in kinds.zip(&route.answers) {
                let value = counter.value();
                if value == 0 {
                    continue;
                }
                let status = kind.map_or(OTHER.to_owned(), |(status, _)| status.to_string());
                let code = match kind {
                    Some((_, code)) => code.map_or(OK, Code::as_str),
                    None => OTHER,
                };
                let labels =
                    [("method", route.method), ("route", route.path), ("status", &status), ("code", code)];
                let all: Vec<_> = [("listener", route.listener.as_str())].into_iter().chain(labels).collect();
                to.value(&all, value);
            }
        }
        to.family(&families::HTTP_SECONDS);
        for route in self.routes.iter().filter(|route| route.answers.iter().any(|each| each.value() > 0)) {
            let listener = route.listener.as_str();
            let labels = [("listener", listener), ("method", route.method), ("route", route.path)];
            to.durations(&labels, &route.times);
        }
        to.family(&families::HTTP_IN_FLIGHT);
        for (listener, gauge) in Listener::ALL.into_iter().zip(&self.in_flight) {
            to.value(&[("listener", listener.as_str())], gauge.value());
        }
        to.family(&families::HTTP_SHED);
        for (listener, shed) in Listener::ALL.into_iter().zip(&self.shed) {
            for (why, counter) in Shed::ALL.into_iter().zip(shed) {
                to.value(&[("listener", listener.as_str()), ("reason", why.as_str())], counter.value());
            }
        }
    }
}

/// Every pair of status and code that an answer can have, the ordinary ones first.
fn kinds() -> Vec<Kind> {
    let mut kinds: Vec<Kind> = vec![(200, None)];
    for answer in OPERATIONS.iter().flat_map(|operation| operation.answers) {
        if !kinds.contains(&(answer.status, None)) {
            kinds.push((answer.status, None));
        }
    }
    for code in Code::ALL {
        for status in problem::statuses(code) {
            if !kinds.contains(&(status.as_u16(), Some(code))) {
                kinds.push((status.as_u16(), Some(code)));
            }
        }
    }
    kinds
}

/// What stands for whatever is not of the API.
const OTHER: &str = "other";
/// No route.
const NONE: &str = "none";
/// The code of what was not refused.
const OK: &str = "ok";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(traffic: &Traffic) -> String {
        let mut text = Exposition::default();
        traffic.expose(&mut text);
        text.into_text()
    }

    #[test]
    fn counts_what_was_answered_under_words_of_the_api_only() {
        let traffic = Traffic::default();
        let took = Duration::from_millis(1);
        let public = Listener::Public;
        traffic.answered((public, "POST", Some("/v1/exchange")), (200, None), took);
        traffic.answered((public, "POST", Some("/v1/exchange")), (403, Some(Code::AccessDenied)), took);
        traffic.answered((public, "PATCH", Some("/v1/exchange")), (405, Some(Code::MethodNotAllowed)), took);
        traffic.answered((public, "GET", None), (404, Some(Code::NotFound)), took);
        traffic.answered((public, "GET", Some("/../secret")), (299, None), took);
        let text = shown(&traffic);
        for line in [
            r#"{listener="public",method="POST",route="/v1/exchange",status="200",code="ok"} 1"#,
            r#"{listener="public",method="POST",route="/v1/exchange",status="403",code="access_denied"} 1"#,
            r#"{listener="public",method="other",route="/v1/exchange",status="405",code="method_not_allowed"} 1"#,
            r#"{listener="public",method="other",route="none",status="404",code="not_found"} 1"#,
        ] {
            assert!(text.contains(&format!("hallpass_http_requests_total{line}\n")), "{line}:\n{text}");
        }
        assert!(!text.contains("secret") && !text.contains("PATCH"), "{text}");
    }

    #[test]
    fn a_request_is_in_flight_until_it_is_dropped() {
        let traffic = Arc::new(Traffic::default());
        let request = traffic.begin(Listener::Admin);
        let line = |count| format!("hallpass_http_requests_in_flight{{listener=\"admin\"}} {count}\n");
        assert!(shown(&traffic).contains(&line(1)));
        drop(request);
        assert!(shown(&traffic).contains(&line(0)));
    }
}

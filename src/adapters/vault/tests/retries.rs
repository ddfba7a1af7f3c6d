//! What is asked again, and what never: status by status.

use std::time::Instant;

use super::*;

fn good() -> Reply {
    json_reply(200, &creds())
}

fn status(code: u16) -> Reply {
    json_reply(code, &json!({ "errors": ["x"] }))
}

#[tokio::test]
async fn reads_are_asked_again_and_what_is_made_is_not() {
    for (reply, fault) in [
        (status(500), VaultFault::Failed(500)),
        (status(502), VaultFault::Failed(502)),
        (Reply::Close, VaultFault::Torn),
    ] {
        let bench = Bench::new();
        bench.fake.on("kv/read", [reply.clone(), reply.clone(), good()]);
        bench.fake.on("kv/make", [reply.clone(), good()]);

        assert!(bench.get("kv/read").await.is_ok(), "{fault:?}");
        assert_eq!(answer_fault(bench.make("kv/make").await), fault);

        assert!(fault.may_have_happened());
        assert_eq!(bench.fake.seen("kv/make").len(), 1, "{fault:?}");
        assert!(bench.metrics().contains("hallpass_backend_orphans_possible_total{backend=\"main\"} 1\n"));
    }
}

#[tokio::test]
async fn a_read_that_fails_three_times_is_given_up() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(500)]);

    assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::Failed(500));

    assert_eq!(bench.fake.seen("kv/a").len(), 3);
}

#[tokio::test]
async fn a_truncated_answer_to_what_was_made_may_have_made_it() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [Reply::Truncated("{\"data\":{".to_owned())]);

    let fault = answer_fault(bench.make("kv/a").await);

    assert_eq!((fault, fault.may_have_happened()), (VaultFault::Torn, true));
    assert_eq!(bench.fake.seen("kv/a").len(), 1);
}

#[tokio::test]
async fn a_time_out_after_the_request_left_may_have_made_it_and_is_not_asked_again() {
    let bench = Bench::changed(|settings| settings.timeout = Duration::from_millis(300));
    bench.fake.on("kv/a", [Reply::Silent]);
    let started = Instant::now();

    let fault = answer_fault(bench.make("kv/a").await);

    assert_eq!((fault, fault.may_have_happened()), (VaultFault::Late { sent: true }, true));
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(bench.fake.seen("kv/a").len(), 1);
}

#[tokio::test]
async fn a_node_that_lags_is_asked_again_whatever_was_asked() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(412), status(412), good()]);

    assert!(bench.make("kv/a").await.is_ok());

    assert_eq!(bench.fake.seen("kv/a").len(), 3);
}

#[tokio::test]
async fn a_node_that_lags_for_two_seconds_is_given_up() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(412)]);
    let started = Instant::now();

    let fault = answer_fault(bench.make("kv/a").await);

    assert_eq!((fault, fault.may_have_happened()), (VaultFault::Stale, false));
    assert!((2..4).contains(&started.elapsed().as_secs()));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_as_it_says_and_three_times_at_most() {
    let bench = Bench::new();
    let limited = Reply::With(429, vec![("retry-after", "1".to_owned())], "{\"errors\":[\"x\"]}".to_owned());
    bench.fake.on("kv/a", [limited.clone(), good()]);
    let started = Instant::now();
    assert!(bench.make("kv/a").await.is_ok());
    assert!(started.elapsed() >= Duration::from_secs(1));

    let limited = Reply::With(429, vec![("retry-after", "0".to_owned())], "{\"errors\":[\"x\"]}".to_owned());
    bench.fake.on("kv/b", [limited]);
    assert_eq!(answer_fault(bench.make("kv/b").await), VaultFault::RateLimited);
    assert_eq!(bench.fake.seen("kv/b").len(), 4);
}

#[tokio::test]
async fn a_rate_limit_that_outlasts_the_call_is_told_at_once() {
    let bench = Bench::new();
    let limited = Reply::With(429, vec![("retry-after", "60".to_owned())], "{\"errors\":[\"x\"]}".to_owned());
    bench.fake.on("kv/a", [limited]);
    let started = Instant::now();

    assert_eq!(answer_fault(bench.make("kv/a").await), VaultFault::RateLimited);

    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_lease_count_quota_is_not_waited_for() {
    let bench = Bench::new();
    let body = json!({ "errors": ["request path \"database/creds/ci\": lease count quota exceeded"] });
    bench.fake.on("kv/a", [json_reply(429, &body)]);

    assert_eq!(answer_fault(bench.make("kv/a").await), VaultFault::Quota);

    assert_eq!(bench.fake.seen("kv/a").len(), 1);
}

#[tokio::test]
async fn what_is_at_fault_itself_is_not_asked_again() {
    for (code, fault) in [
        (400, VaultFault::BadRequest(400)),
        (404, VaultFault::NotFound(NotFound::Absent)),
        (405, VaultFault::BadRequest(405)),
        (413, VaultFault::BadRequest(413)),
        (501, VaultFault::NotInitialised),
        (503, VaultFault::Sealed),
    ] {
        let bench = Bench::new();
        bench.fake.on("kv/a", [status(code)]);
        assert_eq!(answer_fault(bench.get("kv/a").await), fault);
        assert_eq!(bench.fake.seen("kv/a").len(), 1, "{code}");
        assert!(!fault.may_have_happened());
    }
}

#[tokio::test]
async fn a_denial_of_a_good_token_is_looked_at_once_and_stays_a_denial() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(403)]);

    assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::Denied);

    // One by the login, one by the denial.
    assert_eq!((bench.fake.seen("kv/a").len(), bench.fake.seen("auth/token/lookup-self").len()), (1, 2));
}

#[tokio::test]
async fn a_job_that_is_denied_does_not_make_the_broker_log_in() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(403)]);

    assert_eq!(answer_fault(bench.make("kv/a").await), VaultFault::Denied);

    assert!(bench.fake.seen("auth/token/lookup-self").is_empty());
}

#[tokio::test]
async fn another_node_takes_over_from_one_that_is_sealed_or_gone() {
    for is_gone in [false, true] {
        let (standby, active) = (FakeVault::start(), FakeVault::start());
        standby.on("sys/health", [status(429)]);
        active.on("sys/health", [status(200)]);
        active.on("kv/a", [good()]);
        let bench = Bench::changed(|settings| {
            if is_gone {
                // Nobody listens on a port that was free a moment ago.
                let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                settings.addresses = vec![format!("http://127.0.0.1:{port}").parse().unwrap()];
            }
            settings.addresses.push(standby.url.parse().unwrap());
            settings.addresses.push(active.url.parse().unwrap());
        });
        bench.fake.on("kv/a", [status(503)]);

        assert!(bench.make("kv/a").await.is_ok());
        assert!(bench.make("kv/a").await.is_ok());

        assert_eq!((active.seen("kv/a").len(), standby.seen("kv/a").len()), (2, 0));
        assert!(bench.fake.seen("kv/a").len() <= 1, "the active node is remembered");
    }
}

#[tokio::test]
async fn a_backend_that_keeps_failing_is_left_alone_and_metrics_say_so() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(500)]);
    for _ in 0..5 {
        assert_eq!(answer_fault(bench.make("kv/a").await), VaultFault::Failed(500));
    }

    assert_eq!(answer_fault(bench.make("kv/a").await), VaultFault::BreakerOpen);

    assert_eq!(bench.fake.seen("kv/a").len(), 5);
    let metrics = bench.metrics();
    for line in [
        "hallpass_backend_breaker_open{backend=\"main\"} 1\n",
        "hallpass_backend_requests_total{backend=\"main\",outcome=\"failed\"} 5\n",
        "hallpass_backend_requests_total{backend=\"main\",outcome=\"breaker_open\"} 1\n",
        "hallpass_backend_request_duration_seconds_count{backend=\"main\"} 6\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn refusals_do_not_open_the_breaker() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [status(400)]);
    for _ in 0..20 {
        assert_eq!(answer_fault(bench.make("kv/a").await), VaultFault::BadRequest(400));
    }
}

//! The eleven faults of `vaultrs` 0.8, each closed.

use super::*;

#[tokio::test]
async fn fault_1_the_whole_envelope_is_kept() {
    let bench = Bench::new();
    bench.fake.on("database/creds/ci", [json_reply(200, &creds())]);

    let answer = bench.get("database/creds/ci").await.ok().unwrap();

    assert_eq!(answer.lease_id.unwrap().expose_text(), Some("database/creds/ci/AbCd"));
    assert_eq!((answer.lease_duration, answer.renewable), (Duration::from_secs(900), true));
    assert_eq!(answer.data.get("password").unwrap(), "cAnArY-password");
    assert_eq!((answer.warnings, answer.auth.is_none()), (0, true));
}

#[tokio::test]
async fn fault_2_leases_are_renewed_and_revoked() {
    let bench = Bench::new();
    let lease = Secret::from_text("database/creds/ci/AbCd".to_owned());
    bench.fake.on(
        "sys/leases/renew",
        [json_reply(
            200,
            &json!({ "lease_id": "database/creds/ci/AbCd", "renewable": true, "lease_duration": 600 }),
        )],
    );
    bench.fake.on("sys/leases/revoke", [Reply::Json(204, String::new())]);

    let renewed = bench.client.renew_lease(&lease, Duration::from_secs(900)).await.unwrap();
    bench.client.revoke_lease(&lease, true).await.unwrap();

    assert_eq!(renewed, Lease { duration: Duration::from_secs(600), renewable: true });
    let asked: serde_json::Value =
        serde_json::from_str(&bench.fake.seen("sys/leases/renew")[0].body).unwrap();
    assert_eq!(asked, json!({ "lease_id": "database/creds/ci/AbCd", "increment": 900 }));
    let asked: serde_json::Value =
        serde_json::from_str(&bench.fake.seen("sys/leases/revoke")[0].body).unwrap();
    assert_eq!(asked, json!({ "lease_id": "database/creds/ci/AbCd", "sync": true }));
}

#[tokio::test]
async fn fault_2_a_lease_that_is_gone_is_revoked() {
    let bench = Bench::new();
    bench.fake.on("sys/leases/revoke", [json_reply(400, &json!({ "errors": ["invalid lease"] }))]);
    let lease = Secret::from_text("database/creds/ci/AbCd".to_owned());

    assert_eq!(bench.client.revoke_lease(&lease, true).await, Ok(()));

    let in_use = json!({ "errors": ["role cannot be dropped because some objects depend on it (2BP01)"] });
    bench.fake.on("sys/leases/revoke", [json_reply(400, &in_use)]);
    assert_eq!(bench.client.revoke_lease(&lease, true).await, Err(VaultFault::BadRequest(400)));
}

#[tokio::test]
async fn fault_3_health_is_told_by_its_status() {
    // OpenBao's own fields: no `performance_standby`.
    let bench = Bench::new();
    let body = json!({ "initialized": true, "sealed": false, "standby": false, "version": "2.4.1" });
    for status in [200, 429, 472, 473, 474, 501, 503, 530] {
        bench.fake.on("sys/health", [json_reply(status, &body)]);
        assert_eq!(bench.client.health().await, [Some(status)]);
    }
}

#[tokio::test]
async fn fault_4_nothing_of_a_body_is_in_an_error() {
    let bench = Bench::new();
    let canary = "cAnArY";
    for reply in [
        Reply::Json(200, format!("{{\"data\": {{\"password\": \"{canary}\"")),
        Reply::Json(200, format!("{{\"data\": \"{canary}\"}}")),
        Reply::Json(200, format!("{{\"errors\": [\"{canary}\"]}}")),
        Reply::Json(400, format!("{{\"errors\": [\"{canary}\"]}}")),
        Reply::Json(403, format!("{{\"errors\": [\"{canary}\"]}}")),
        Reply::Json(500, format!("{{\"errors\": [\"{canary}\"]}}")),
        Reply::Json(418, canary.to_owned()),
        Reply::Truncated(format!("{{\"data\": {{\"password\": \"{canary}\"")),
    ] {
        bench.fake.on("kv/a", [reply]);
        let fault = answer_fault(bench.make("kv/a").await);
        let shown = format!("{fault} {fault:?} {}", fault.reason());
        assert!(!shown.contains(canary), "{shown}");
    }
}

#[tokio::test]
async fn fault_5_nothing_that_can_be_printed_holds_a_token() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [Reply::Close]);

    let fault = answer_fault(bench.make("kv/a").await);

    let shown = format!("{:?} {fault:?} {fault}", bench.client.settings());
    assert!(!shown.contains("cAnArY"), "{shown}");
    assert_eq!(bench.fake.seen("kv/a")[0].header("x-vault-token"), Some(JOB));
}

#[tokio::test]
async fn fault_6_a_redirect_to_elsewhere_is_not_followed() {
    let (bench, stranger) = (Bench::new(), FakeVault::start());
    stranger.on("kv/a", [json_reply(200, &creds())]);
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/v1/kv/a", stranger.url);
        bench.fake.on("kv/a", [Reply::With(status, vec![("location", to)], String::new())]);

        assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::Redirected, "{status}");
    }
    assert!(stranger.seen("kv/a").is_empty(), "the token went to a stranger");
}

#[tokio::test]
async fn fault_6_a_redirect_to_a_configured_node_is_followed_with_path_and_body_as_they_were() {
    let active = FakeVault::start();
    active.on("kv/a", [json_reply(200, &creds())]);
    active.on("elsewhere", [json_reply(200, &creds())]);
    let bench = Bench::changed(|settings| settings.addresses.push(active.url.parse().unwrap()));
    // A standby names the active node; what else it says is not believed.
    let to = format!("{}/v1/elsewhere", active.url);
    bench.fake.on("kv/a", [Reply::With(307, vec![("location", to)], String::new())]);

    assert!(bench.make("kv/a").await.is_ok());
    assert!(bench.make("kv/a").await.is_ok());

    assert_eq!((active.seen("kv/a").len(), active.seen("elsewhere").len()), (2, 0));
    assert_eq!(active.seen("kv/a")[0].body, "{}");
    assert_eq!(bench.fake.seen("kv/a").len(), 1, "the node that is active now is asked first");
}

#[tokio::test]
async fn fault_6_nodes_that_redirect_to_each_other_are_given_up() {
    let other = FakeVault::start();
    let bench = Bench::changed(|settings| settings.addresses.push(other.url.parse().unwrap()));
    let to = |url: &str| Reply::With(307, vec![("location", format!("{url}/v1/kv/a"))], String::new());
    bench.fake.on("kv/a", [to(&other.url)]);
    other.on("kv/a", [to(&bench.fake.url)]);

    assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::Redirected);
}

#[tokio::test]
async fn fault_7_a_newline_at_a_tokens_end_is_none_of_it() {
    let bench = Bench::with_token(&format!("{TOKEN}\n"), |_| {});
    bench.fake.on("kv/a", [json_reply(200, &creds())]);

    assert!(bench.get("kv/a").await.is_ok());

    assert_eq!(bench.fake.seen("kv/a")[0].header("x-vault-token"), Some(TOKEN));
    for wrong in ["", "\n", "two\nlines", "with\0nul", "with space", "ümlaut"] {
        let bench = Bench::with_token(wrong, |_| {});
        assert_eq!(
            answer_fault(bench.get("kv/a").await),
            VaultFault::Login(LoginFault::Content),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn fault_8_a_token_is_read_whatever_else_its_answer_lacks() {
    let bench = Bench::new();
    for auth in [
        json!({ "client_token": JOB, "accessor": "acc" }),
        json!({
            "client_token": JOB, "accessor": "acc", "policies": null, "token_policies": null,
            "identity_policies": null, "metadata": null, "lease_duration": null, "renewable": null,
            "entity_id": null, "token_type": null, "orphan": null, "mfa_requirement": null, "num_uses": null,
        }),
    ] {
        bench.fake.on("auth/token/create/ci", [json_reply(200, &json!({ "data": null, "auth": auth }))]);
        let order =
            JobTokenOrder { role: "ci", policies: &[], ttl: Duration::from_secs(60), meta: &BTreeMap::new() };

        let token = bench.client.create_job_token(&order).await.ok().unwrap();

        assert_eq!((token.token.expose_text(), token.accessor.expose_text()), (Some(JOB), Some("acc")));
    }
    let without = json!({ "auth": { "client_token": JOB } });
    bench.fake.on("auth/token/create/ci", [json_reply(200, &without)]);
    let order =
        JobTokenOrder { role: "ci", policies: &[], ttl: Duration::from_secs(60), meta: &BTreeMap::new() };
    let fault = bench.client.create_job_token(&order).await.err().unwrap();
    assert!(matches!(fault, VaultFault::Malformed(_)), "a token that nobody could revoke was taken");
}

#[tokio::test]
async fn fault_9_credentials_need_no_certain_field() {
    let bench = Bench::new();
    for (data, field) in [
        (json!({ "username": "v", "rsa_private_key": "k" }), "rsa_private_key"),
        (json!({ "client_certificate": "c", "private_key": "k" }), "client_certificate"),
        (json!({ "access_key": "a", "secret_key": "s", "security_token": null }), "secret_key"),
        (json!({ "username": "v", "password": "p", "last_openbao_rotation": "2026" }), "password"),
    ] {
        bench.fake.on("database/creds/ci", [json_reply(200, &json!({ "data": data }))]);
        let answer = bench.get("database/creds/ci").await.ok().unwrap();
        assert!(answer.data.get(field).is_some(), "{field}");
    }
}

#[tokio::test]
async fn fault_10_a_prefix_stands_in_front_and_the_path_is_sent_as_it_is() {
    for prefix in ["/behind/a-proxy", "/behind/a-proxy/", "/", ""] {
        let bench = Bench::changed(|settings| {
            let url = settings.addresses[0].to_string();
            settings.addresses = vec![format!("{}{prefix}", url.trim_end_matches('/')).parse().unwrap()];
        });
        bench.fake.on("secret/data/ci", [json_reply(200, &creds())]);

        let path = path_of("secret/data/ci").at_version(7);
        let options = RequestOptions { by: By::Own, retry: Retry::Read };
        assert!(bench.client.request(Verb::Get, &path, None, options).await.is_ok());

        let target = format!("{}/v1/secret/data/ci?version=7", prefix.trim_end_matches('/'));
        assert_eq!(bench.fake.seen("secret/data/ci")[0].target, target);
        assert!(bench.fake.faults().is_empty());
    }
}

#[tokio::test]
async fn fault_11_a_deleted_version_is_told_from_a_missing_one() {
    let bench = Bench::new();
    let version = |deleted: &str, destroyed: bool| {
        let metadata = json!({ "deletion_time": deleted, "destroyed": destroyed, "version": 2 });
        json!({ "data": { "data": null, "metadata": metadata } })
    };
    for (body, found) in [
        (version("2026-11-01T00:00:00Z", false), NotFound::Deleted),
        (version("", true), NotFound::Destroyed),
        (json!({ "errors": [] }), NotFound::Absent),
    ] {
        bench.fake.on("secret/data/ci", [json_reply(404, &body)]);
        assert_eq!(answer_fault(bench.get("secret/data/ci").await), VaultFault::NotFound(found));
    }
}

#[tokio::test]
async fn fault_11_one_client_is_shared_and_its_token_replaced() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [json_reply(200, &creds())]);
    assert!(bench.get("kv/a").await.is_ok());
    std::fs::write(bench.folder.path().join("token"), "hvs.another").unwrap();
    // Vault does not know the first one any more.
    bench.fake.on(
        "auth/token/lookup-self",
        [
            json_reply(403, &json!({ "errors": ["permission denied"] })),
            json_reply(200, &looked(3_600, &["hallpass"])),
        ],
    );
    bench.fake.on(
        "kv/a",
        [json_reply(403, &json!({ "errors": ["permission denied"] })), json_reply(200, &creds())],
    );

    assert!(bench.get("kv/a").await.is_ok());

    let tokens: Vec<_> =
        bench.fake.seen("kv/a").iter().map(|seen| seen.header("x-vault-token").unwrap().to_owned()).collect();
    assert_eq!(tokens, [TOKEN, TOKEN, "hvs.another"]);
}

#[tokio::test]
async fn bodies_of_more_than_four_mebibytes_are_not_read() {
    let bench = Bench::new();
    let large = format!("{{\"data\": {{\"value\": \"{}\"}}}}", "x".repeat(5 * 1024 * 1024));
    bench.fake.on("kv/a", [Reply::Json(200, large)]);
    assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::Malformed("larger than 4 MiB"));

    let fitting = format!("{{\"data\": {{\"value\": \"{}\"}}}}", "x".repeat(3 * 1024 * 1024));
    bench.fake.on("kv/a", [Reply::Json(200, fitting)]);
    assert!(bench.get("kv/a").await.is_ok());
}

#[tokio::test]
async fn a_wrapped_answer_that_nobody_asked_for_waits_for_approval() {
    let bench = Bench::new();
    let wrapped = json!({ "data": null, "wrap_info": { "token": "hvs.w", "accessor": "a", "ttl": 60 } });
    bench.fake.on("kv/a", [json_reply(200, &wrapped)]);

    assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::ControlGroup);
}

#[tokio::test]
async fn a_connection_that_fetched_a_secret_is_not_used_again() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [json_reply(200, &creds())]);
    bench.fake.on("auth/token/revoke-accessor", [Reply::Json(204, String::new())]);

    for _ in 0..3 {
        assert!(bench.get("kv/a").await.is_ok());
        assert!(bench.client.revoke_accessor(&Secret::from_text("acc".to_owned())).await.is_ok());
    }

    let of = |path: &str| bench.fake.seen(path).iter().map(|seen| seen.connection).collect::<Vec<_>>();
    let (fetched, revoked) = (of("kv/a"), of("auth/token/revoke-accessor"));
    assert!(fetched[0] != fetched[1] && fetched[1] != fetched[2], "{fetched:?}");
    assert_eq!(revoked[0], revoked[2], "a connection that carried no secret is kept");
}

#[tokio::test]
async fn namespaces_go_with_every_request() {
    let bench = Bench::changed(|settings| settings.namespace = Some("team/payments".to_owned()));
    bench.fake.on("kv/a", [json_reply(200, &creds())]);

    assert!(bench.get("kv/a").await.is_ok());

    for path in ["kv/a", "auth/token/lookup-self"] {
        assert_eq!(bench.fake.seen(path)[0].header("x-vault-namespace"), Some("team/payments"), "{path}");
    }
}

#[tokio::test]
async fn job_tokens_are_asked_for_as_short_orphans_of_their_role() {
    let bench = Bench::new();
    let auth = json!({ "client_token": JOB, "accessor": "acc", "lease_duration": 900 });
    bench.fake.on("auth/token/create/ci", [json_reply(200, &json!({ "auth": auth }))]);
    let meta = BTreeMap::from([("issuance".to_owned(), "iss_1".to_owned())]);
    let policies = ["db".to_owned()];
    let order = JobTokenOrder { role: "ci", policies: &policies, ttl: Duration::from_secs(900), meta: &meta };

    let token = bench.client.create_job_token(&order).await.ok().unwrap();

    assert_eq!(token.ttl, Duration::from_secs(900));
    let asked: serde_json::Value =
        serde_json::from_str(&bench.fake.seen("auth/token/create/ci")[0].body).unwrap();
    for (name, value) in [
        ("policies", json!(["db"])),
        ("ttl", json!("900s")),
        ("explicit_max_ttl", json!("900s")),
        ("renewable", json!(false)),
        ("no_default_policy", json!(true)),
        ("type", json!("service")),
        ("meta", json!({ "issuance": "iss_1" })),
    ] {
        assert_eq!(asked[name], value, "{name}");
    }
}

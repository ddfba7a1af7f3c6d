//! Hallpass as an OIDC issuer, in the eyes of verifiers that are not ours and over whole rotations: npm `jose`, Apache's
//! module in C, and Vault. Time that a rotation takes passes by its dates in the database, as they would look on that day.

use std::{fs, path::Path, time::Duration};

use axum::{Router, http::StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{
    removal::Waiting,
    support::{
        AUDIENCE, Cluster, Installation, Server,
        apache::Apache,
        eventually,
        forgery::{claims, header},
        front::Front,
        installation::{finish, run},
        npm::Script,
        runtime,
        vault::Vault,
    },
};

/// What the sample grant's assertion is for.
const CLOUD: &str = "https://cloud.test";
const DAY: u64 = 86_400;
/// From the first signature of the new key to the end of the old one: the life of an assertion, and the lead time.
const UNTIL_REMOVED: u64 = DAY + 300;

#[test]
fn verifiers_in_three_languages_follow_a_whole_rotation() {
    let ours = Own::new("");
    let mut jose = ours.jose();
    let apache = ours.apache();
    let vault = Vault::start();
    vault.trust((&ours.front.url, &ours.front.authority), CLOUD, "grant:deploy");
    let mut all_accept = |assertion: &str| {
        assert_eq!(ask(&mut jose, assertion)["payload"]["sub"], "grant:deploy");
        assert_eq!(apache.status(assertion), 200);
        let (status, known) = vault.log_in(assertion);
        assert_eq!((status, &known["auth"]["metadata"]["role"]), (200, &json!("deploy")), "{known}");
    };
    let old = ours.assertion();
    all_accept(&old);
    let [first, elliptic] = two(ours.kids());

    let told =
        run(&mut ours.installation.command(&["keys", "rotate", "assertions", "--algorithm", "RS256"]), "");
    let second = told.trim().strip_prefix("RS256 ").unwrap().to_owned();
    ours.until_kids(&[&first, &second, &elliptic]);
    assert_eq!(header(&ours.assertion())["kid"], *first, "the new key signs before it is known everywhere");
    all_accept(&ours.assertion());

    ours.pass(DAY);
    ours.until_kids(&[&second, &first, &elliptic]);
    let new = ours.assertion();
    assert_eq!(header(&new)["kid"], *second);
    all_accept(&new);
    all_accept(&old);
    // Whoever starts now knows both.
    assert_eq!(ask(&mut ours.jose(), &old)["payload"]["sub"], "grant:deploy");

    ours.pass(UNTIL_REMOVED);
    ours.until_kids(&[&second, &elliptic]);
    all_accept(&new);
    let refused = jose.ask(&json!({ "token": old, "audience": CLOUD, "fresh": true }));
    assert_eq!(refused, json!({ "refused": "ERR_JWKS_NO_MATCHING_KEY" }));
    let apache = ours.apache();
    assert_eq!((apache.status(&old), apache.status(&new)), (401, 200));

    let entries = ours.server.entries("KEY_ROTATED");
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let result = &entry["result"];
    assert_eq!((&result["key"], &result["algorithm"]), (&json!("assertions"), &json!("RS256")));
    assert_eq!((&result["kid"], &result["before"][0]["kid"]), (&json!(second), &json!(first)));
}

#[test]
fn verifiers_in_three_languages_refuse_what_we_did_not_sign_for_them() {
    let ours = Own::new("");
    ours.installation.write("policies/grants/others.yaml", OTHERS);
    let others = eventually("the other grant", || {
        let ask = json!({ "grants": ["others"] });
        let answer = ours.server.public.exchange(&ours.installation.issuer.token(), &ask);
        (answer.status == 200).then(|| answer.json())
    });
    let token = |name: &str| {
        let issuances = others["issuances"].as_array().unwrap();
        let found = issuances.iter().find(|issuance| issuance["credential"] == name).unwrap();
        found["fields"]["token"].as_str().unwrap().to_owned()
    };
    let good = ours.assertion();
    let [head, payload, signature] = parts(&good);
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let refused = [
        token("elsewhere"),
        ours.installation.issuer.token(),
        format!("{head}.{}.{signature}", parts(&token("cloud"))[1]),
        format!("{head}.{payload}.{}", parts(&token("cloud"))[2]),
        format!("{unsigned}.{payload}."),
    ];
    let mut jose = ours.jose();
    let apache = ours.apache();
    let vault = Vault::start();
    vault.trust((&ours.front.url, &ours.front.authority), CLOUD, "grant:deploy");
    for bad in &refused {
        assert!(ask(&mut jose, bad)["refused"].is_string(), "{bad}");
        assert_eq!(apache.status(bad), 401, "{bad}");
        assert_eq!(vault.log_in(bad).0, 400, "{bad}");
    }
    // Another grant's is good for the same service, and its subject says whose it is.
    let other = token("cloud");
    assert_eq!(ask(&mut jose, &other)["payload"]["sub"], "grant:others");
    assert_eq!(vault.log_in(&other).0, 400, "another grant may not log in as this one");
    assert_eq!((apache.status(&good), vault.log_in(&good).0), (200, 200));
}

#[test]
fn assertion_is_refused_a_moment_after_its_end() {
    let ours = Own::new("");
    let mut jose = ours.jose();
    let assertion = ours.assertion();
    let (issued, end) = (&claims(&assertion)["iat"], claims(&assertion)["exp"].as_i64().unwrap());
    assert_eq!(end - issued.as_i64().unwrap(), 300);

    let mut at = |seconds: i64| jose.ask(&json!({ "token": assertion, "audience": CLOUD, "at": seconds }));

    assert_eq!(at(end - 1)["payload"]["sub"], "grant:deploy");
    assert_eq!(at(end), json!({ "refused": "ERR_JWT_EXPIRED" }));
}

#[test]
fn assertion_names_grant_and_issuance_and_nothing_of_the_ci_token() {
    let ours = Own::new("");
    let issuance = ours.server.only(&ours.installation.issuer.token(), "cloud");
    let claims = claims(issuance["fields"]["token"].as_str().unwrap());
    let names: Vec<&String> = claims.as_object().unwrap().keys().collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "nbf", "sub"]);
    assert_eq!((&claims["jti"], &claims["sub"]), (&issuance["id"], &json!("grant:deploy")));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ours.front.url), &json!(CLOUD)));
}

#[test]
fn audience_that_wants_es256_gets_it_and_others_do_not() {
    let ours = Own::new(&format!(", es256: [\"{CLOUD}\"]"));
    let assertion = ours.assertion();
    assert_eq!(header(&assertion)["alg"], "ES256");
    assert_eq!(ask(&mut ours.jose(), &assertion)["header"]["alg"], "ES256");
    assert_eq!(ours.apache().status(&assertion), 200);
    let vault = Vault::start();
    vault.trust((&ours.front.url, &ours.front.authority), CLOUD, "grant:deploy");
    assert_eq!(vault.log_in(&assertion).0, 200);

    let plain = Own::new(", es256: [\"https://elsewhere.test\"]");
    assert_eq!(header(&plain.assertion())["alg"], "RS256");
}

#[test]
fn second_rotation_before_the_first_is_over_is_refused() {
    let ours = Own::new("");
    run(&mut ours.rotate(&[]), "");
    let again = finish(&mut ours.rotate(&[]), "");
    assert_eq!(again.status.code(), Some(2));
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(told.contains("published already and signs from"), "{told}");
    assert_eq!(ours.server.entries("KEY_ROTATED").len(), 2, "one of each algorithm");
}

#[test]
fn stolen_key_is_withdrawn_within_seconds_and_without_restart() {
    let ours = Own::new("");
    let stolen = ours.assertion();
    let before = ours.kids();

    run(&mut ours.rotate(&["--compromised"]), "");

    let new = eventually("another key", || {
        let assertion = ours.assertion();
        (header(&assertion)["kid"] != header(&stolen)["kid"]).then_some(assertion)
    });
    assert!(ours.kids().iter().all(|kid| !before.contains(kid)));
    let mut jose = ours.jose();
    assert_eq!(ask(&mut jose, &stolen), json!({ "refused": "ERR_JWKS_NO_MATCHING_KEY" }));
    assert_eq!(ask(&mut jose, &new)["payload"]["sub"], "grant:deploy");
    let apache = ours.apache();
    assert_eq!((apache.status(&stolen), apache.status(&new)), (401, 200));
    // What was stolen cannot be stolen again.
    assert!(
        ours.private_halves().iter().all(|purpose| purpose.ends_with("-2")),
        "{:?}",
        ours.private_halves()
    );
}

#[test]
fn private_half_is_gone_a_minute_after_its_last_signature() {
    let ours = Own::new("");
    run(&mut ours.rotate(&["--algorithm", "ES256"]), "");
    assert_eq!(ours.private_halves(), ["assertion", "assertion-es256-1", "assertion-es256-2"]);

    ours.pass(DAY + 60);

    eventually("its end", || (ours.private_halves() == ["assertion", "assertion-es256-2"]).then_some(()));
    // Verifiers are told of it all the same.
    assert_eq!(ours.kids().len(), 3);
}

#[test]
fn keys_list_tells_states_and_dates() {
    let ours = Own::new("");
    let listed = || {
        let text = run(&mut ours.installation.command(&["keys", "list", "--output", "json"]), "");
        let items = serde_json::from_str::<Value>(&text).unwrap()["items"].take();
        let own = items.as_array().unwrap().iter().filter(|item| item["purpose"] == "assertion");
        own.map(|item| {
            let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
            assert_eq!(text("id").len(), 43, "{item}");
            (text("algorithm"), text("state"), text("next").split(' ').take(2).collect::<Vec<_>>().join(" "))
        })
        .collect::<Vec<_>>()
    };
    let line =
        |algorithm: &str, state: &str, next: &str| (algorithm.to_owned(), state.to_owned(), next.to_owned());
    let elliptic = line("ES256", "active", "-");
    assert_eq!(listed(), [line("RS256", "active", "-"), elliptic.clone()]);
    run(&mut ours.rotate(&["--algorithm", "RS256"]), "");
    assert_eq!(
        listed(),
        [line("RS256", "active", "signs until"), line("RS256", "published", "signs from"), elliptic.clone()]
    );
    ours.pass(DAY);
    assert_eq!(
        listed(),
        [line("RS256", "retired", "told until"), line("RS256", "active", "-"), elliptic.clone()]
    );
    ours.pass(UNTIL_REMOVED);
    assert_eq!(listed(), [line("RS256", "removed", "-"), line("RS256", "active", "-"), elliptic]);
    let human = run(&mut ours.installation.command(&["keys", "list"]), "");
    assert!(human.contains("  RS256") && human.contains("removed"), "{human}");
}

#[test]
fn replicas_change_keys_at_the_same_moment_through_the_database_alone() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let replicas = [installation.replica(1), installation.replica(2)];
    let signed = |server: &Server| kid(&assertion(&installation, server));
    let first = signed(&replicas[0]);
    assert_eq!(signed(&replicas[1]), first);

    run(&mut installation.command(&["keys", "rotate", "assertions", "--algorithm", "RS256"]), "");
    for server in &replicas {
        eventually("the published key", || (kids(server).len() == 3).then_some(()));
        assert_eq!(signed(server), first);
    }
    let shift = |column: &str| format!("{column} = {column} - {}", nanoseconds(DAY));
    let columns = ["published_at", "active_at", "retired_at", "removed_at"].map(shift).join(", ");
    cluster.psql("hallpass", &format!("UPDATE hallpass.assertion_key SET {columns}"));

    for server in &replicas {
        eventually("the new key's turn", || (signed(server) != first).then_some(()));
    }
    assert_eq!(signed(&replicas[0]), signed(&replicas[1]));
    assert_eq!(kids(&replicas[0]), kids(&replicas[1]));
    assert_eq!(replicas[0].entries("KEY_ROTATED").len(), 1);

    run(&mut installation.command(&["keys", "rotate", "assertions", "--compromised"]), "");
    for server in &replicas {
        eventually("the withdrawal", || (kids(server).len() == 2).then_some(()));
    }
    assert_eq!(signed(&replicas[0]), signed(&replicas[1]));
}

#[test]
fn store_of_an_older_version_gets_its_es256_key_as_any_later_key_comes() {
    let front = Front::start();
    let installation = Installation::new();
    configure(&installation, &front.url, &format!("issuer: \"{}\", es256: [\"{CLOUD}\"]", front.url));
    // What `migrations/sqlite/0006_assertion_keys.sql` leaves of a store that was made before it.
    let database = Connection::open(installation.file("hallpass.db")).unwrap();
    for table in ["assertion_key", "keys"] {
        database.execute(&format!("DELETE FROM {table} WHERE purpose = 'assertion-es256-1'"), []).unwrap();
    }
    drop(database);
    let looked = |installation: &Installation| {
        let text = finish(&mut installation.command(&["doctor"]), "").stdout;
        let text = String::from_utf8(text).unwrap();
        text.lines().skip_while(|line| !line.contains(" assertions ")).take(2).collect::<Vec<_>>().join("\n")
    };
    let told = looked(&installation);
    assert!(told.starts_with("failing") && told.contains("no ES256 key"), "{told}");
    assert!(told.contains("start `hallpass serve`"), "{told}");

    let server = installation.serve();
    front.lead_to(server.public.address);

    let ours = Own { front, installation, server };
    let [first, elliptic] = two(eventually("both keys", || Some(ours.kids()).filter(|kids| kids.len() == 2)));
    let [entry] = ours.server.entries("KEY_ROTATED").try_into().unwrap();
    let result = &entry["result"];
    assert_eq!((&result["algorithm"], &result["kid"]), (&json!("ES256"), &json!(elliptic)));
    assert_eq!((&result["version"], &result["before"]), (&json!(1), &json!([])));
    // Whoever keeps a set that lacks it is not asked to verify by it.
    let ask_for = json!({ "grants": [{ "name": "deploy", "credentials": ["cloud"] }] });
    let refused = ours.server.public.exchange(&ours.installation.issuer.token(), &ask_for);
    refused.problem(502, "backend_failed");
    let told = looked(&ours.installation);
    assert!(told.starts_with("warning") && told.contains("the ES256 key signs from"), "{told}");

    ours.pass(DAY);

    let assertion = eventually("its turn", || {
        let answer = ours.server.public.exchange(&ours.installation.issuer.token(), &ask_for);
        let token = |answer: Value| answer["issuances"][0]["fields"]["token"].as_str().unwrap().to_owned();
        (answer.status == 200).then(|| token(answer.json()))
    });
    assert_eq!((&header(&assertion)["alg"], kid(&assertion)), (&json!("ES256"), json!(elliptic)));
    assert_eq!(ask(&mut ours.jose(), &assertion)["payload"]["sub"], "grant:deploy");
    assert_eq!(ours.kids(), [first, elliptic]);
    assert_eq!(looked(&ours.installation), "");
}

#[test]
fn brokers_that_find_a_store_of_an_older_version_at_once_publish_one_key() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    for table in ["assertion_key", "keys"] {
        let delete = format!("DELETE FROM hallpass.{table} WHERE purpose = 'assertion-es256-1'");
        cluster.psql("hallpass", &delete);
    }

    let replicas: Vec<Server> = std::thread::scope(|scope| {
        let starting = [1, 2, 3].map(|number| {
            scope.spawn({
                let installation = &installation;
                move || installation.replica(number)
            })
        });
        starting.map(|each| each.join().unwrap()).into()
    });

    for server in &replicas {
        eventually("both keys", || (kids(server).len() == 2).then_some(()));
        assert_eq!(kids(server), kids(&replicas[0]));
    }
    let [entry] = replicas[0].entries("KEY_ROTATED").try_into().unwrap();
    assert_eq!(entry["result"]["kid"], kids(&replicas[0])[1]);
}

#[test]
fn broker_that_lost_the_database_signs_nothing() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.serve();
    assertion(&installation, &server);
    cluster.stop();
    let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["cloud"] }] });
    let refused = server.public.exchange(&installation.issuer.token(), &ask);
    refused.problem(503, "ledger_unavailable");
    assert!(!refused.body.contains("eyJ"), "{}", refused.body);
    // Its keys can still be had: verifiers must not suffer.
    assert_eq!(kids(&server).len(), 2);
}

#[test]
fn issuer_elsewhere_is_served_from_a_folder_and_not_at_the_public_url() {
    let bucket = tempfile::tempdir().unwrap();
    let front = Front::start();
    front.lead_to(file_server(bucket.path()));
    let own = format!("issuer: \"{}\", publish: \"{}\"", front.url, bucket.path().display());
    let installation = Installation::new();
    configure(&installation, AUDIENCE, &own);
    let server = installation.serve();

    // Discovery at the public URL would have to name the public URL (OpenID Connect Discovery 1.0 section 4.3).
    server.public.get("/.well-known/openid-configuration").send().problem(404, "not_found");
    let file = |name: &str| fs::read_to_string(bucket.path().join(".well-known").join(name)).ok();
    let published =
        eventually("the documents", || file("openid-configuration").and_then(|_| file("jwks.json")));
    assert_eq!(serde_json::from_str::<Value>(&published).unwrap(), jwks(&server));

    let ours = Own { front, installation, server };
    let mut jose = ours.jose();
    let old = ours.assertion();
    assert_eq!(claims(&old)["iss"], ours.front.url);
    assert_eq!(ask(&mut jose, &old)["payload"]["sub"], "grant:deploy");
    run(&mut ours.rotate(&["--algorithm", "RS256"]), "");
    ours.pass(DAY);
    let new = eventually("the new key's turn", || {
        let assertion = ours.assertion();
        (kid(&assertion) != kid(&old)).then_some(assertion)
    });
    eventually("the bucket's new set", || (file("jwks.json")? != published).then_some(()));
    assert_eq!(ask(&mut jose, &new)["payload"]["sub"], "grant:deploy");

    // The command writes the same, for those who copy by hand.
    let by_hand = tempfile::tempdir().unwrap();
    let folder = by_hand.path().to_str().unwrap();
    let told = run(&mut ours.installation.command(&["keys", "publish", folder]), "");
    assert_eq!(told.lines().count(), 2, "{told}");
    for name in ["jwks.json", "openid-configuration"] {
        let written = fs::read_to_string(by_hand.path().join(".well-known").join(name)).ok();
        assert_eq!(written, file(name), "{name}");
    }
    assert_eq!(run(&mut ours.installation.command(&["keys", "publish", folder]), ""), "");
}

#[test]
fn issuers_documents_may_be_kept_for_less_than_a_new_key_waits_and_nothing_else_may() {
    let ours = Own::new("");
    for path in ["/.well-known/jwks.json", "/.well-known/openid-configuration"] {
        let answer = ours.server.public.get(path).send();
        assert_eq!((answer.status, answer.header("cache-control")), (200, "public, max-age=300"));
        assert_eq!((answer.header("pragma"), answer.header("vary")), ("", ""));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let refused = ours.server.public.get("/.well-known/jwks.json?a=b").send();
    assert!(refused.status == 200 || refused.header("cache-control") == "no-store");
    let absent = ours.server.public.get("/.well-known/other").send();
    assert_eq!((absent.status, absent.header("cache-control")), (404, "no-store"));
}

#[test]
fn our_own_issuer_is_refused_as_a_ci_issuer_with_its_place() {
    let ours = Own::new("");
    let configuration = fs::read_to_string(ours.installation.file("hallpass.yaml")).unwrap();
    let spelled = format!("{}/", ours.front.url.replace("https", "HTTPS"));
    let trusting =
        format!("issuers:\n  own: {{ url: \"{spelled}\", profile: generic, allow_private_addresses: true }}");
    ours.installation.write("spoiled.yaml", &configuration.replace("issuers:", &trusting));
    let checked =
        finish(&mut ours.installation.command(&["config", "check", "--config", "spoiled.yaml"]), "");
    assert_eq!(checked.status.code(), Some(2));
    let told = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
    let line = configuration.lines().position(|line| line == "issuers:").unwrap() + 2;
    assert!(
        told.contains(&format!("spoiled.yaml:{line}:15")) && told.contains("this broker itself"),
        "{told}"
    );
    let serve = finish(&mut ours.installation.command(&["serve", "--config", "spoiled.yaml"]), "");
    assert_eq!(serve.status.code(), Some(2), "{serve:?}");
}

#[test]
fn assertions_for_clouds_with_a_kind_of_their_own_and_for_ourselves_are_refused_at_load() {
    let installation = Installation::new();
    for audience in [
        AUDIENCE,
        "HTTPS://Hallpass.Test/",
        "sts.amazonaws.com",
        "STS.amazonaws.com",
        "https://sts.amazonaws.com",
        "sts.us-east-1.amazonaws.com",
        "sts.amazonaws.com.cn",
        "api://AzureADTokenExchange",
        "api://AzureADTokenExchangeUSGov",
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/h",
        "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/h",
    ] {
        installation
            .write("policies/grants/others.yaml", &OTHERS.replace("https://elsewhere.test", audience));
        let checked = finish(&mut installation.command(&["policy", "check"]), "");
        assert_eq!(checked.status.code(), Some(20), "{audience}: {checked:?}");
        let told = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
        assert!(told.contains("policies/grants/others.yaml:"), "{told}");
        assert!(told.contains("audience-federated") || told.contains("audience-ourselves"), "{told}");
    }
    installation.write("policies/grants/others.yaml", OTHERS);
    run(&mut installation.command(&["policy", "check"]), "");
}

#[test]
fn assertion_to_our_own_issuer_is_refused_under_whatever_name_before_any_job_asks() {
    let installation = Installation::new();
    configure(&installation, AUDIENCE, "issuer: \"https://oidc.hallpass.test/ci\"");
    installation.write("policies/grants/others.yaml", OTHERS);
    let server = installation.serve();
    let to_ourselves = OTHERS.replace("https://elsewhere.test", "https://OIDC.hallpass.test/ci/");
    installation.write("policies/grants/others.yaml", &to_ourselves);

    // At its place, by every command that knows configuration and policy both.
    let line = to_ourselves.lines().position(|line| line.contains("OIDC")).unwrap() + 1;
    for (command, code) in [
        (&["config", "check"][..], 20),
        (&["policy", "check"], 20),
        (&["policy", "check", "--config", "hallpass.yaml", "policies"], 20),
        (&["policy", "test"], 20),
    ] {
        let checked = finish(&mut installation.command(command), "");
        let told = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(code), "{command:?}: {told}");
        assert!(told.contains(&format!("others.yaml:{line}:")), "{command:?}: {told}");
        assert!(
            told.contains("audience-ourselves") && told.contains("name the service"),
            "{command:?}: {told}"
        );
    }
    // A broker that runs keeps its set, and says so.
    let rejected = eventually("the refusal", || server.entries("POLICY_REJECTED").pop());
    assert!(rejected.to_string().contains("audience-ourselves"), "{rejected}");
    let ask = json!({ "grants": [{ "name": "others", "credentials": ["elsewhere"] }] });
    let issuance = server.public.exchange(&installation.issuer.token(), &ask).ok()["issuances"][0].clone();
    let given = claims(issuance["fields"]["token"].as_str().unwrap());
    assert_eq!(given["aud"], "https://elsewhere.test");
    server.stop();
    // One that starts is not ready with it, and says the same.
    let waiting = Waiting::start(&installation);
    eventually("the refusal", || waiting.process.logs().contains("policy set refused").then_some(()));
    waiting.public.exchange(&installation.issuer.token(), &ask).problem(503, "not_ready");
    let ready = waiting.admin.get("/readyz").send();
    ready.problem(503, "not_ready");
    assert!(ready.body.contains("policy"), "{ready:?}");
}

#[test]
fn connection_to_a_cloud_asks_for_no_assertion_to_ourselves() {
    let installation = Installation::new();
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let backends =
        format!("backends: {{ cloud: {{ aws: {{ region: eu-west-2, audience: \"{AUDIENCE}\" }} }} }}\n");
    installation.write("hallpass.yaml", &format!("{text}{backends}"));

    let checked = finish(&mut installation.command(&["config", "check"]), "");

    let told = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{told}");
    let line = text.lines().count() + 1;
    assert!(
        told.contains(&format!("hallpass.yaml:{line}:")) && told.contains("this broker itself"),
        "{told}"
    );
}

/// A grant of the sample job with assertions for two services.
const OTHERS: &str = r#"grant: others
description: What others need
allow:
  - name: deploy-from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112", ref: refs/heads/main }
credentials:
  cloud:
    oidc: { audience: "https://cloud.test" }
    ttl: 5m
  elsewhere:
    oidc: { audience: "https://elsewhere.test" }
    ttl: 5m
"#;

/// A broker that is an issuer at a URL with TLS.
struct Own {
    front: Front,
    installation: Installation,
    server: Server,
}

impl Own {
    /// `more` is for `assertions`.
    fn new(more: &str) -> Self {
        let front = Front::start();
        let installation = Installation::new();
        configure(&installation, &front.url, &format!("issuer: \"{}\"{more}", front.url));
        let server = installation.serve();
        front.lead_to(server.public.address);
        Self { front, installation, server }
    }

    fn jose(&self) -> Script {
        let authority = self.installation.file("authority.pem");
        fs::write(&authority, &self.front.authority).unwrap();
        Script::start(
            "verify.mjs",
            &[&self.front.url, &self.front.url],
            &[("NODE_EXTRA_CA_CERTS", &authority)],
        )
    }

    fn apache(&self) -> Apache {
        Apache::trusting(&self.front.url, &self.front.authority, CLOUD)
    }

    fn assertion(&self) -> String {
        assertion(&self.installation, &self.server)
    }

    fn kids(&self) -> Vec<String> {
        kids(&self.server)
    }

    #[track_caller]
    fn until_kids(&self, due: &[&str]) {
        eventually("the set of keys", || (self.kids() == due).then_some(()));
    }

    fn rotate(&self, more: &[&str]) -> std::process::Command {
        let mut command = self.installation.command(&["keys", "rotate", "assertions"]);
        command.args(more);
        command
    }

    /// Lets time pass for the keys: their dates lie further back.
    fn pass(&self, seconds: u64) {
        let conn = self.database();
        let by = nanoseconds(seconds);
        for column in ["published_at", "active_at", "retired_at", "removed_at"] {
            conn.execute(&format!("UPDATE assertion_key SET {column} = {column} - {by}"), []).unwrap();
        }
        drop(conn);
        self.server.hang_up();
    }

    /// The names of the private halves that the database holds.
    fn private_halves(&self) -> Vec<String> {
        let conn = self.database();
        let mut rows = conn
            .prepare("SELECT purpose FROM keys WHERE purpose LIKE 'assertion%' ORDER BY purpose")
            .unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn database(&self) -> Connection {
        let conn = Connection::open(self.installation.file("hallpass.db")).unwrap();
        conn.busy_timeout(Duration::from_secs(10)).unwrap();
        conn
    }
}

/// Another public URL, and what stands in `assertions`.
fn configure(installation: &Installation, public: &str, assertions: &str) {
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let text = text
        .replace(
            &format!("assertions: {{ issuer: \"{AUDIENCE}\" }}"),
            &format!("assertions: {{ {assertions} }}"),
        )
        .replace(&format!("url: {AUDIENCE} "), &format!("url: \"{public}\" "));
    installation.write("hallpass.yaml", &text);
}

fn assertion(installation: &Installation, server: &Server) -> String {
    let issuance = server.only(&installation.issuer.token(), "cloud");
    issuance["fields"]["token"].as_str().unwrap().to_owned()
}

fn jwks(server: &Server) -> Value {
    server.public.get("/.well-known/jwks.json").send().ok()
}

fn kids(server: &Server) -> Vec<String> {
    let set = jwks(server);
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn kid(assertion: &str) -> Value {
    header(assertion)["kid"].clone()
}

fn ask(jose: &mut Script, assertion: &str) -> Value {
    jose.ask(&json!({ "token": assertion, "audience": CLOUD }))
}

fn parts(token: &str) -> [&str; 3] {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().unwrap()
}

fn two(kids: Vec<String>) -> [String; 2] {
    kids.try_into().unwrap()
}

fn nanoseconds(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

/// Serves the files of a folder, and nothing else, as a bucket does.
fn file_server(folder: &Path) -> std::net::SocketAddr {
    let folder = folder.to_owned();
    let router = Router::new().fallback(move |uri: axum::http::Uri| {
        let file = folder.join(uri.path().trim_start_matches('/'));
        async move { fs::read(file).map_err(|_| StatusCode::NOT_FOUND) }
    });
    let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move { axum::serve(listener, router).await });
    address
}

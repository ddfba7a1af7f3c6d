//! Looking after an issuance: who may, what it says, and what giving back means where nobody can revoke.

use serde_json::{Value, json};

use super::{
    exchange::members,
    once::only,
    support::{Installation, Server},
};

#[test]
fn handle_is_the_right_to_read_one_issuance() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "cloud");

    let seen = read(&server, &issuance["id"], &issuance["handle"]).ok();

    assert_eq!(
        members(&seen),
        [
            "credential",
            "expires_at",
            "grant",
            "id",
            "issued_at",
            "kind",
            "lifetime",
            "revocable",
            "state",
            "usable_until",
        ]
    );
    assert_eq!(seen["state"], "live");
    for member in ["id", "grant", "credential", "kind", "lifetime", "issued_at", "expires_at", "revocable"] {
        assert_eq!(seen[member], issuance[member], "{member}");
    }
}

#[test]
fn token_that_was_used_still_reads_its_own_issuance() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let issuance = server.only(&token, "npm");

    assert_eq!(read(&server, &issuance["id"], &token.into()).ok()["state"], "live");
}

#[test]
fn another_token_of_the_same_job_has_the_same_right() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "npm");

    read(&server, &issuance["id"], &installation.issuer.token().into()).ok();
}

#[test]
fn unknown_and_foreign_issuances_look_the_same() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuer = &installation.issuer;
    let [mine, other] = [(); 2].map(|()| server.only(&issuer.token(), "npm"));
    let id = mine["id"].as_str().unwrap();
    let unknown = format!("{}{}", &id[..id.len() - 4], if id.ends_with("0000") { "1111" } else { "0000" });
    let foreign = issuer.token_with(json!({ "check_run_id": "1" }));
    let incomplete = issuer.token_with(json!({ "check_run_id": null }));

    let answers = [
        read(&server, &unknown.into(), &mine["handle"]),
        read(&server, &json!("iss_nonsense"), &mine["handle"]),
        read(&server, &mine["id"], &other["handle"]),
        read(&server, &mine["id"], &foreign.into()),
        read(&server, &mine["id"], &incomplete.into()),
    ];

    let bodies = answers.map(|answer| {
        let mut body = answer.problem(404, "not_found");
        body["request_id"].take();
        body
    });
    for body in &bodies {
        assert_eq!(body, &bodies[0]);
    }
}

#[test]
fn given_back_twice_is_released_once() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "npm");

    let answers = [(); 2].map(|()| give_back(&server, &issuance).ok());

    assert_eq!(answers, [(); 2].map(|()| json!({ "state": "released", "usable_until": null })));
    assert_eq!(server.entries("RELEASED").len(), 1);
    assert_eq!(read(&server, &issuance["id"], &issuance["handle"]).ok()["state"], "released");
}

#[test]
fn giving_back_an_assertion_says_how_long_it_stays_usable() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "cloud");

    let answer = give_back(&server, &issuance).ok();

    assert_eq!(answer, json!({ "state": "released", "usable_until": issuance["expires_at"] }));
}

#[test]
fn nobody_else_can_give_it_back() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "npm");
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    let foreign = installation.issuer.token_with(json!({ "run_id": "1" }));

    server.public.call("DELETE", &path).bearer(&foreign).send().problem(404, "not_found");

    server.public.call("DELETE", &path).send().problem(401, "token_missing");
    assert_eq!(read(&server, &issuance["id"], &issuance["handle"]).ok()["state"], "live");
}

#[test]
fn handle_outlives_a_restart() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "npm");
    server.stop();

    let server = installation.serve();

    assert_eq!(read(&server, &issuance["id"], &issuance["handle"]).ok()["state"], "live");
}

#[test]
fn handle_is_no_right_to_exchange() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "npm");

    let answer = server.public.exchange(issuance["handle"].as_str().unwrap(), &only("npm"));

    answer.problem(401, "token_malformed");
}

fn read(server: &Server, id: &Value, right: &Value) -> super::support::Answer {
    let path = format!("/v1/issuances/{}", id.as_str().unwrap());
    server.public.get(&path).bearer(right.as_str().unwrap()).send()
}

fn give_back(server: &Server, issuance: &Value) -> super::support::Answer {
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    server.public.call("DELETE", &path).bearer(issuance["handle"].as_str().unwrap()).send()
}

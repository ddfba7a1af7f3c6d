//! Issuers that are slow or away: who waits, who does not, how often they are asked, and how they come back.

use std::{
    fs,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{deploy, standing, trusting, until_told, until_well};
use crate::support::{
    Answer, Installation, Server, eventually,
    hostile_issuer::{HostileIssuer, Reply},
    issuer::{KID, foreign_key, sign, valid_claims},
};

/// Fetches may take long, so that it is the test that ends them.
const PATIENT: &str = "deadlines: { exchange: 60s, issuer: 60s }\n";

/// Asks from as many threads as there are tokens, all at once, and answers what came of it.
fn all_at_once(server: &Server, tokens: Vec<String>, meanwhile: impl FnOnce()) -> Vec<Answer> {
    let barrier = Arc::new(Barrier::new(tokens.len() + 1));
    std::thread::scope(|scope| {
        let asking: Vec<_> = tokens
            .into_iter()
            .map(|token| {
                let barrier = Arc::clone(&barrier);
                scope.spawn(move || {
                    barrier.wait();
                    deploy(server, &token)
                })
            })
            .collect();
        barrier.wait();
        meanwhile();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    })
}

#[test]
fn two_hundred_jobs_share_the_first_fetch() {
    let issuer = HostileIssuer::start();
    issuer.hold();
    let installation = trusting(&[("ci", &issuer, "")], PATIENT);
    let server = installation.serve();
    eventually("the first fetch", || (issuer.requests() == 1).then_some(()));
    let token = issuer.token();
    let tokens: Vec<String> = (0..200).map(|_| issuer.token()).collect();

    let answers = all_at_once(&server, tokens, || {
        // One that came before the keys did has to wait for them.
        std::thread::scope(|scope| {
            let first = scope.spawn(|| deploy(&server, &token));
            issuer.let_go();
            first.join().unwrap().ok();
        });
    });

    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200; 200]);
    assert_eq!(issuer.requests(), 2, "discovery and keys, once: {:?}", issuer.asked());
}

#[test]
fn a_flood_of_invented_key_ids_is_no_flood_of_fetches() {
    let issuer = HostileIssuer::start();
    let installation = trusting(&[("ci", &issuer, "")], "");
    let server = installation.serve();
    until_well(&server, "ci");

    let token = issuer.token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let claims = signed.split_once('.').unwrap().1;
    let tokens: Vec<String> = (0..400)
        .map(|n| {
            let header = json!({ "alg": "RS256", "typ": "JWT", "kid": format!("invented-{n}") });
            format!("{}.{claims}.{signature}", crate::support::key::encode(header.to_string().as_bytes()))
        })
        .collect();
    for tokens in tokens.chunks(100) {
        for answer in all_at_once(&server, tokens.to_vec(), || {}) {
            answer.problem(401, "token_signature");
        }
        deploy(&server, &issuer.token()).ok();
    }
    // Discovery and keys at the start; at most the same once more, should this machine take a minute for it.
    assert!(issuer.requests() <= 4, "{:?}", issuer.asked());
}

#[test]
fn known_keys_are_served_while_a_refresh_hangs() {
    let issuer = HostileIssuer::start();
    let installation = trusting(&[("ci", &issuer, "")], PATIENT);
    let server = installation.serve();
    until_well(&server, "ci");
    issuer.hold();
    server.hang_up();
    eventually("a refresh that hangs", || (issuer.requests() == 3).then_some(()));

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| deploy(&server, &issuer.token_of("invented")));
        for _ in 0..20 {
            deploy(&server, &issuer.token()).ok();
        }
        assert_eq!(issuer.requests(), 3, "it hangs still");
        issuer.let_go();
        waiting.join().unwrap().problem(401, "token_signature");
    });
    deploy(&server, &issuer.token()).ok();
}

#[test]
fn a_withdrawn_key_is_refused_as_soon_as_the_operator_asks() {
    let issuer = HostileIssuer::start();
    let installation = trusting(&[("ci", &issuer, "")], "");
    let server = installation.serve();
    until_well(&server, "ci");
    let next = foreign_key().jwk("next");
    issuer.publish(vec![next]);
    deploy(&server, &issuer.token()).ok();

    server.hang_up();
    eventually("the withdrawal", || (deploy(&server, &issuer.token()).status == 401).then_some(()));

    deploy(&server, &issuer.token()).problem(401, "token_signature");
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "next" });
    deploy(&server, &sign(foreign_key(), &header, &valid_claims(&issuer.url))).ok();
}

#[test]
fn those_who_wait_for_one_issuer_leave_room_for_the_jobs_of_another() {
    let (well, hung) = (HostileIssuer::start(), HostileIssuer::start());
    hung.hold();
    let installation = trusting(&[("ci", &well, ""), ("hung", &hung, "")], PATIENT);
    in_flight(&installation, 8);
    let server = installation.serve();
    until_well(&server, "ci");

    std::thread::scope(|scope| {
        let (told, refused) = std::sync::mpsc::channel();
        for _ in 0..30 {
            let (told, server, token) = (told.clone(), &server, hung.token());
            scope.spawn(move || told.send(deploy(server, &token)).unwrap());
        }
        // Seven of the eight places may be waited in, so all others hear at once that it is no use.
        for _ in 0..23 {
            let answer = refused.recv().unwrap();
            assert_eq!(answer.status, 503, "{answer:?}");
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            assert!(["issuer_unavailable", "overloaded"].contains(&code.as_str()), "{code}");
        }
        for _ in 0..20 {
            deploy(&server, &well.token()).ok();
        }
        assert_eq!(hung.requests(), 1, "nobody hangs in a second fetch");
        hung.let_go();
        for _ in 0..7 {
            // Policy permits nothing to this issuer's jobs, but their tokens hold.
            refused.recv().unwrap().problem(403, "access_denied");
        }
    });
}

#[test]
fn a_flood_of_bad_signatures_of_one_issuer_costs_another_nothing() {
    let (well, flooded) = (HostileIssuer::start(), HostileIssuer::start());
    let installation = trusting(&[("ci", &well, ""), ("flooded", &flooded, "")], "");
    let server = installation.serve();
    until_well(&server, "ci");
    until_well(&server, "flooded");

    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KID });
    let forged = sign(foreign_key(), &header, &valid_claims(&flooded.url));
    let mut served = Vec::new();
    for _ in 0..4 {
        let forgeries = all_at_once(&server, vec![forged.clone(); 100], || {
            served.extend((0..10).map(|_| deploy(&server, &well.token()).status));
        });
        for answer in forgeries {
            answer.problem(401, "token_signature");
        }
    }
    assert_eq!(served, [200; 40]);
    assert_eq!((flooded.requests(), well.requests()), (2, 2), "no forgery made anybody ask again");
}

#[test]
fn an_issuer_that_is_away_is_told_in_bounded_time_and_fails_nobody_else() {
    let (well, away) = (HostileIssuer::start(), HostileIssuer::start());
    away.answer_discovery(Reply::Silence);
    let installation = trusting(&[("ci", &well, ""), ("away", &away, "")], "deadlines: { issuer: 1s }\n");
    let server = installation.serve();

    // Whether it is the fetch of the start that it waits for or none at all, it hears within the deadline.
    let problem = deploy(&server, &away.token()).problem(503, "issuer_unavailable");
    // At most the cool-down, and the half of it that answers are spread over.
    assert!((1..=90).contains(&problem["retry_after_seconds"].as_u64().unwrap()), "{problem}");
    let told = until_told(&server, "away", "no answer in time");
    assert_eq!(told["ready"], false, "{told}");
    assert_eq!(standing(&server, "ci")["ready"], true);
    deploy(&server, &well.token()).ok();
    for _ in 0..50 {
        deploy(&server, &away.token()).problem(503, "issuer_unavailable");
    }
    assert_eq!(away.requests(), 1, "fifty jobs asked it again");
}

/// The one test that waits for real: the cool-down is a minute, and the machine's clock cannot be moved.
#[test]
fn an_issuer_that_was_away_comes_back_by_itself() {
    let issuer = HostileIssuer::start();
    issuer.answer_discovery(Reply::status(503, "", b""));
    let installation = trusting(&[("ci", &issuer, "")], "");
    let server = installation.serve();
    until_told(&server, "ci", "the discovery document: the answer has status 503");
    deploy(&server, &issuer.token()).problem(503, "issuer_unavailable");
    issuer.be_right();

    // 60 s, a quarter of jitter, a look each second, and what this machine needs.
    let start = Instant::now();
    while standing(&server, "ci")["ready"] != true {
        assert!(start.elapsed() < Duration::from_secs(120), "{}", standing(&server, "ci"));
        std::thread::sleep(Duration::from_millis(200));
    }

    assert_eq!(issuer.requests(), 3, "no job asked for it: {:?}", issuer.asked());
    deploy(&server, &issuer.token()).ok();
}

fn in_flight(installation: &Installation, places: u32) {
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let limited = text.replace("limits: {", &format!("limits: {{ in_flight: {places},"));
    assert_ne!(text, limited);
    installation.write("hallpass.yaml", &limited);
}

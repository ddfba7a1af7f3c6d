//! Policy under a running broker, at the edges: exchanges go on while large sets are swapped, every entry names the set
//! that decided, and what a directory of policy may not hold changes nothing.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::{
    once::only,
    support::{AUDIENCE, Installation, Server, eventually},
};

const COMMIT: &str = "9f3182061f1e2cca4702c368cbc039b7dc9d4485";

/// Grants of a large set.
const GRANTS: usize = 2_000;
/// The sets that follow each other after the first.
const SWAPS: [&str; 4] = ["second", "first", "second", "first"];

#[test]
fn exchanges_go_on_while_large_sets_are_swapped_and_entries_name_the_set_that_decided() {
    let installation = Installation::new();
    let first = large_set(&installation, "first");
    let second = large_set(&installation, "second");
    point_to(&installation, "first");
    let server = installation.serve();
    let tokens = SWAPS.map(|_| installation.issuer.token());
    let is_over = AtomicBool::new(false);

    let answered = std::thread::scope(|scope| {
        let jobs = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut answered = 0;
                while !is_over.load(Ordering::SeqCst) {
                    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
                    answered += 1;
                }
                answered
            })
        });
        for (name, token) in SWAPS.into_iter().zip(&tokens) {
            let loaded = server.entries("POLICY_LOADED").len();
            point_to(&installation, name);
            server.hang_up();
            // While the set is read, at least this one is answered.
            server.public.exchange(token, &only("npm")).ok();
            eventually("the set", || (server.entries("POLICY_LOADED").len() > loaded).then_some(()));
        }
        is_over.store(true, Ordering::SeqCst);
        jobs.map(|job| job.join().unwrap()).into_iter().sum::<usize>()
    });

    assert!(answered > 0);
    let intents = server.entries("INTENT");
    assert!(!intents.is_empty());
    for intent in &intents {
        let named = &intent["policy"];
        let expected = if named["rule"] == "rule-of-first" { &first } else { &second };
        assert_eq!(named["file"], "grants/deploy.yaml");
        assert!(["rule-of-first", "rule-of-second"].contains(&named["rule"].as_str().unwrap()));
        assert_eq!(&named["digest"], expected, "{named}");
    }
    // What is decided after the last swap is decided by the set that it left.
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    assert_eq!(server.entries("INTENT")[0]["policy"]["digest"], first);
}

#[test]
fn symlinks_that_lead_out_or_nowhere_or_round_change_nothing() {
    let installation = Installation::new();
    installation.write("elsewhere/evil.yaml", "grant: evil\n");
    let server = installation.serve();
    let link = installation.file("policies/grants/link.yaml");

    let outside = installation.file("elsewhere/evil.yaml");
    for (target, code) in [
        (outside.as_path(), "policy-escape"),
        (Path::new("../../elsewhere/evil.yaml"), "policy-escape"),
        (Path::new("/etc/passwd"), "policy-escape"),
        (Path::new("gone.yaml"), "policy-unreadable"),
        (Path::new("link.yaml"), "policy-unreadable"),
        (Path::new(".."), "policy-cycle"),
    ] {
        let before = server.entries("POLICY_REJECTED").len();
        symlink(target, &link).unwrap();
        server.hang_up();
        let rejected = eventually("the refusal", || {
            let rejected = server.entries("POLICY_REJECTED");
            (rejected.len() > before).then(|| rejected[0].clone())
        });
        assert!(rejected["result"]["first"][0].to_string().contains(code), "{target:?}: {rejected}");
        fs::remove_file(&link).unwrap();
    }

    assert_eq!(server.entries("POLICY_LOADED").len(), 1);
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    assert!(!server.logs().contains("root:"), "no file outside was shown");
}

#[test]
fn symlink_inside_the_root_is_followed_and_its_swap_is_another_set() {
    let installation = Installation::new();
    let server = installation.serve();
    // As volumes of Kubernetes do: a link to a folder with a leading dot, swapped by a rename.
    for (turn, grant) in ["one", "two"].into_iter().enumerate() {
        installation.write(&format!("policies/..{turn}/g.yaml"), &granting(grant));
        let draft = installation.file("policies/.next");
        symlink(format!("..{turn}"), &draft).unwrap();
        fs::rename(draft, installation.file("policies/..data")).unwrap();
        let link = installation.file("policies/grants/linked");
        if turn == 0 {
            symlink("../..data", link).unwrap();
        }
        server.hang_up();
        eventually(grant, || granted(&installation, &server).contains(&grant.to_owned()).then_some(()));
    }
    assert!(!granted(&installation, &server).contains(&"one".to_owned()));
}

#[test]
fn set_from_a_git_checkout_carries_its_commit_and_waits_for_git() {
    let installation = Installation::new();
    installation.write(".git/HEAD", "ref: refs/heads/main\n");
    installation.write(".git/refs/heads/main", &format!("{COMMIT}\n"));
    let server = installation.serve();
    assert_eq!(server.entries("POLICY_LOADED")[0]["result"]["commit"], COMMIT);

    // A checkout under way: half of it is there, and the lock is held.
    installation.write(".git/index.lock", "");
    installation.write("policies/grants/one.yaml", &granting("one"));
    server.hang_up();
    for _ in 0..3 {
        server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    }
    assert_eq!(server.entries("POLICY_LOADED").len(), 1);
    let next = COMMIT.replace('9', "8");
    installation.write("policies/grants/two.yaml", &granting("two"));
    installation.write(".git/refs/heads/main", &format!("{next}\n"));
    fs::remove_file(installation.file(".git/index.lock")).unwrap();

    let loaded = eventually("the set", || {
        let loaded = server.entries("POLICY_LOADED");
        (loaded.len() > 1).then(|| loaded[0].clone())
    });
    assert_eq!(loaded["result"]["commit"], next);
    server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["two"] })).ok();
    let intent = &server.entries("INTENT")[0]["policy"];
    assert_eq!((&intent["commit"], &intent["digest"]), (&json!(next), &loaded["result"]["digest"]));
    assert_eq!((&intent["grant"], &intent["rule"]), (&json!("two"), &json!("all")));
    assert_eq!(intent["file"], "grants/two.yaml");
}

/// A set in a folder beside `policies`, named by its digest once it is there.
fn large_set(installation: &Installation, name: &str) -> Value {
    let url = &installation.issuer.url;
    let issuer = format!(
        "issuer: ci\nprofile: github-actions\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
    );
    let folder = format!("sets/{name}");
    installation.write(&format!("{folder}/issuers/ci.yaml"), &issuer);
    let deploy = granting("deploy").replace("name: all", &format!("name: rule-of-{name}"));
    installation.write(&format!("{folder}/grants/deploy.yaml"), &deploy);
    fs::create_dir_all(installation.file(&format!("{folder}/grants/many"))).unwrap();
    for number in 0..GRANTS {
        let grant = format!("g{number}");
        let path = installation.file(&format!("{folder}/grants/many/{grant}.yaml"));
        fs::write(path, granting(&grant)).unwrap();
    }
    point_to(installation, name);
    let checked = super::support::installation::run(
        &mut installation.command(&["config", "check", "--output", "json"]),
        "",
    );
    serde_json::from_str::<Value>(&checked).unwrap()["digest"].clone()
}

/// Makes that set the one that `policies` is, in one rename.
fn point_to(installation: &Installation, name: &str) {
    let policies = installation.file("policies");
    if policies.symlink_metadata().is_ok_and(|about| about.is_dir()) {
        fs::remove_dir_all(&policies).unwrap();
    }
    let draft = installation.file("policies.next");
    symlink(format!("sets/{name}"), &draft).unwrap();
    fs::rename(draft, policies).unwrap();
}

/// A grant that the valid job may use.
fn granting(name: &str) -> String {
    format!(
        "grant: {name}\nallow:\n  - name: all\n    issuer: ci\n    \
         match: {{ repository_owner_id: \"4216\", repository_id: \"70155112\" }}\n\
         credentials:\n  npm: {{ sealed: {{ secret: npm-token }} }}\n"
    )
}

/// The names of grants that the valid job may use.
fn granted(installation: &Installation, server: &Server) -> Vec<String> {
    let body = server.public.get("/v1/grants").bearer(&installation.issuer.token()).send().ok();
    let grants = body["grants"].as_array().unwrap().clone();
    grants.into_iter().map(|grant| grant["name"].as_str().unwrap().to_owned()).collect()
}

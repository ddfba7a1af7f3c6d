//! `hallpass doctor` on connections to AWS: against a real STS, against one that works out every signature, and against
//! places where there is none. Each finding says what to do.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
};

use serde_json::{Value, json};

use super::{
    doctor::{good, said},
    support::{
        Installation,
        installation::finish,
        issuer::now,
        key::Key,
        moto::Moto,
        npm::Script,
        python,
        radosgw::{Front, Radosgw},
    },
};

/// An installation with that connection; `issuer` is the `iss` of its assertions.
fn connected(issuer: &str, aws: &str) -> Installation {
    let installation = good();
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let ours = text.lines().find(|line| line.starts_with("assertions: ")).unwrap();
    let text = text.replace(ours, &format!("assertions: {{ issuer: \"{issuer}\" }}"));
    installation.write("hallpass.yaml", &format!("{text}backends: {{ cloud: {{ aws: {{ {aws} }} }} }}\n"));
    installation
}

fn at(endpoint: &str) -> String {
    format!("region: us-east-1, endpoint: \"{endpoint}\", timeout: 2s")
}

/// What was found that does not stand well, with what to do: `part: found -> advice`.
fn complaints(installation: &Installation) -> Vec<String> {
    ["failing", "warning"]
        .iter()
        .flat_map(|standing| said(installation, standing).1)
        .filter(|look| ["assertions", "backends", "clock"].iter().any(|part| look["part"] == *part))
        .map(|look| shown(&look))
        .collect()
}

fn shown(look: &Value) -> String {
    let text = |name: &str| look[name].as_str().unwrap();
    let (part, found, advice) = (text("part"), text("found"), text("advice"));
    if advice.is_empty() { format!("{part}: {found}") } else { format!("{part}: {found} -> {advice}") }
}

#[track_caller]
fn only(installation: &Installation, due: &[&str]) {
    let found = complaints(installation);
    let [complaint] = found.as_slice() else { panic!("{found:?}") };
    assert!(complaint.contains(" -> "), "it does not say what to do: {complaint}");
    for part in due {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

#[test]
fn nothing_is_amiss_where_a_real_sts_answers_and_the_keys_are_where_the_assertions_say() {
    let (gateway, front) = (Radosgw::shared(), Front::start());
    let ours = connected(&front.url, &at(&gateway.endpoint));
    let server = ours.serve();
    let keys = server.public.get("/.well-known/jwks.json").send().ok();
    front.publish_all(&keys);

    assert_eq!(complaints(&ours), [""; 0]);

    let (code, fine) = said(&ours, "ok");
    assert_eq!(code, Some(0));
    let fine: Vec<String> = fine.iter().map(shown).collect();
    let kid = keys["keys"][0]["kid"].as_str().unwrap();
    for due in [
        &[
            "backends: cloud: region us-east-1",
            gateway.endpoint.as_str(),
            "in place of the region's own",
            "answers",
        ][..],
        &["backends: cloud", "our own assertions", "sts.amazonaws.com"],
        &["assertions: the RS256 key", kid, front.url.as_str(), "sts.amazonaws.com"],
        &["clock:", "from that of cloud"],
    ] {
        assert!(fine.iter().any(|line| due.iter().all(|part| line.contains(part))), "{due:?}: {fine:#?}");
    }
    server.stop();
}

#[test]
fn keys_that_stand_elsewhere_or_are_old_are_found_before_aws_finds_them() {
    let (gateway, front) = (Radosgw::shared(), Front::start());
    let ours = connected(&front.url, &at(&gateway.endpoint));
    front.publish(&json!({ "keys": [Key::rsa().jwk("another")] }));
    only(&ours, &["assertions: the RS256 key", "is not among the 1", "hallpass keys publish"]);

    let nowhere = connected("http://127.0.0.1:1", &at(&gateway.endpoint));
    only(
        &nowhere,
        &["http://127.0.0.1:1/.well-known/openid-configuration", "cannot be reached", "keys publish"],
    );

    // A set that lacks what comes next works today, and not on the day of the next key.
    let server = ours.serve();
    front.publish(&server.public.get("/.well-known/jwks.json").send().ok());
    only(&ours, &["a later one would not be known", "hallpass keys publish"]);
    server.stop();

    // Another name for the same place is another issuer to AWS.
    let spelled = connected(&format!("{}/", front.url), &at(&gateway.endpoint));
    only(&spelled, &["is of the issuer", &front.url]);
}

#[test]
fn issuer_that_aws_itself_cannot_take_is_told() {
    let ours = connected("http://127.0.0.1:1", "region: us-gov-west-1, fips: true, timeout: 1s");
    let found = complaints(&ours);
    assert!(
        found.iter().any(|line| line.contains("is not https") && line.contains("set `assertions.issuer`")),
        "{found:?}"
    );
    // Whether this machine reaches AWS or not, it is said whom it would ask.
    let all: Vec<String> = ["ok", "failing"]
        .iter()
        .flat_map(|standing| said(&ours, standing).1)
        .map(|look| shown(&look))
        .collect();
    let due = "region us-gov-west-1, STS at https://sts.us-gov-west-1.amazonaws.com";
    assert!(all.iter().any(|line| line.contains(due) && line.contains("FIPS host")), "{all:#?}");
}

#[test]
fn endpoint_that_is_dead_or_no_sts_is_told_with_what_to_look_at() {
    let front = Front::start();
    let ours = connected(&front.url, &at("http://127.0.0.1:1"));
    let server = ours.serve();
    front.publish_all(&server.public.get("/.well-known/jwks.json").send().ok());
    only(&ours, &["backends: cloud", "http://127.0.0.1:1", "refused", "look at the network, at `endpoint`"]);
    server.stop();

    for (status, date) in [(302, None), (500, None)] {
        let ours = connected(&front.url, &at(&answering(status, date)));
        let found = complaints(&ours);
        let due = format!("without signature with {status}");
        assert!(
            found.iter().any(|line| line.contains(&due) && line.contains(" -> look at `endpoint`")),
            "{found:?}"
        );
    }
}

#[test]
fn clock_that_is_too_far_from_the_services_is_told_before_assertions_are_refused() {
    let now = jiff::Timestamp::from_second(now()).unwrap();
    let dated = |seconds: i64| {
        let then = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
        let date = then.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let ours = connected("http://127.0.0.1:1", &at(&answering(403, Some(date))));
        complaints(&ours).into_iter().find(|line| line.starts_with("clock:"))
    };
    assert_eq!(dated(0), None);
    let warned = dated(40).unwrap();
    assert!(warned.contains("time server") && !warned.contains("refuses"), "{warned}");
    let failing = dated(-600).unwrap();
    assert!(failing.contains("it refuses our assertions") && failing.contains("time server"), "{failing}");
}

#[test]
fn credentials_around_the_broker_are_tried_and_named() {
    let mut strict = Script::spawn(python::program("aws", "python").arg(python::tests().join("aws/sts.py")));
    let endpoint = strict.next()["url"].as_str().unwrap().to_owned();
    strict.ask(&json!({ "accept": { "id": "AKIAAROUND", "secret": "around/the+broker", "session": null } }));
    let looks = |ours: &Installation, secret: &str| {
        let mut command = ours.command(&["doctor", "--output", "json"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", ours.file(""));
        if !secret.is_empty() {
            command.env("AWS_ACCESS_KEY_ID", "AKIAAROUND").env("AWS_SECRET_ACCESS_KEY", secret);
        }
        let output = finish(&mut command, "");
        let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(secret.is_empty() || !told.contains(secret), "a secret key is shown: {told}");
        let told: Value = serde_json::from_str(&told).unwrap();
        let looks = told["looks"].as_array().unwrap().iter().filter(|look| look["part"] == "backends");
        (output.status.code(), looks.map(shown).collect::<Vec<_>>())
    };
    let any = |looks: &[String], due: &[&str]| {
        assert!(looks.iter().any(|line| due.iter().all(|part| line.contains(part))), "{due:?}: {looks:#?}");
    };
    let ambient = |endpoint: &str| {
        connected("https://hallpass.test", &format!("{}, credentials: ambient", at(endpoint)))
    };
    let ours = ambient(&endpoint);

    let (code, found) = looks(&ours, "around/the+broker");
    assert_eq!(code, Some(0), "{found:#?}");
    any(&found, &["cloud: the broker calls it as arn:aws:sts::123456789012:assumed-role/deploy/job"]);
    let (code, found) = looks(&ours, "of/nobody+here");
    assert_eq!(code, Some(2));
    any(
        &found,
        &["nobody to it: credentials-refused", "the signature does not match", " -> look at the credentials"],
    );
    let (code, found) = looks(&ours, "");
    assert_eq!(code, Some(2));
    any(&found, &["nobody to it: no-ambient-credentials", " -> give the broker a role"]);

    // The same in the shape of AWS's own answer, by a server that takes whatever it is told; that is found out, too.
    let moto = Moto::start();
    let (code, found) = looks(&ambient(&moto.endpoint), "around/the+broker");
    assert_eq!(code, Some(2), "{found:#?}");
    any(
        &found,
        &["a call without signature with 200, where a healthy STS refuses", " -> look at `endpoint`"],
    );
    any(&found, &["cloud: the broker calls it as arn:aws:"]);
}

#[test]
fn role_of_another_partition_is_told_beside_its_grant() {
    let gateway = Radosgw::shared();
    let front = Front::start();
    let ours = connected(&front.url, &at(&gateway.endpoint));
    let server = ours.serve();
    front.publish_all(&server.public.get("/.well-known/jwks.json").send().ok());
    server.stop();
    ours.write(
        "policies/grants/china.yaml",
        "grant: china\nallow:\n  - name: main\n    issuer: ci\n    match: { repository_owner_id: \"4216\", repository_id: \"70155112\" }\n\
         credentials:\n  aws: { aws: { role_arn: \"arn:aws-cn:iam::123456789012:role/deploy\" }, ttl: 15m }\n",
    );
    only(&ours, &["credential `aws` of grant `china`", "not of the partition of us-east-1", "mend the ARN"]);
}

/// A service that answers whatever it is asked with that status and date.
fn answering(status: u16, date: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut read = String::new();
            let mut bytes = [0; 4096];
            while !read.contains("Action=") {
                let count = stream.read(&mut bytes).unwrap();
                read.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            let date = date.as_ref().map(|date| format!("Date: {date}\r\n")).unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status} -\r\n{date}Location: https://elsewhere.test/\r\nContent-Length: 0\r\n\r\n"
            );
            // Whoever asked may have gone.
            stream.write_all(head.as_bytes()).ok();
        }
    });
    endpoint
}

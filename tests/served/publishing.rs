//! The ledger where it is published: a folder that a reader of C2SP tlog-tiles in another language understands, a
//! checkpoint that never gets smaller whoever is killed or paused, a database that is held against it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    independent_ledger::accepts,
    support::{
        Cluster, Installation, Server, eventually,
        installation::{finish, run},
    },
};

/// An installation that publishes, and the folder.
fn publishing(installation: Installation) -> (Installation, PathBuf) {
    let folder = installation.file("public");
    fs::create_dir(&folder).unwrap();
    let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let publish = "seen: ledger.seen, publish: public, publish_every: 1s";
    installation.write("hallpass.yaml", &configuration.replace("seen: ledger.seen", publish));
    (installation, folder)
}

/// The size that the checkpoint says; 0 before the first.
fn published(folder: &Path) -> u64 {
    let Ok(note) = fs::read_to_string(folder.join("checkpoint")) else { return 0 };
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// The number under which the duty was taken last.
fn fence(folder: &Path) -> u64 {
    fs::read_to_string(folder.join(".publisher")).map_or(0, |text| text.trim().parse().unwrap())
}

fn key(installation: &Installation) -> String {
    run(&mut installation.command(&["keys", "show", "ledger"]), "")
}

fn size(server: &Server, installation: &Installation) -> u64 {
    let note = server.admin.get("/v1/ledger/checkpoint").bearer(&installation.admin_token("auditor")).send();
    note.body.lines().nth(1).unwrap().parse().unwrap()
}

/// Waits until all is published that the ledger has now.
fn published_all(server: &Server, installation: &Installation, folder: &Path) {
    let now = size(server, installation);
    eventually("what is in the ledger to be published", || (published(folder) >= now).then_some(()));
}

#[test]
fn another_programs_reader_of_tiles_accepts_what_is_published_and_finds_one_bit() {
    let (installation, folder) = publishing(Installation::new());
    let server = installation.serve();
    let key = key(&installation);
    // Past a full tile, with checkpoints in between.
    for turn in 0..140 {
        server.only(&installation.issuer.token(), "npm");
        if turn % 60 == 0 {
            published_all(&server, &installation, &folder);
            assert!(accepts("tiles", &key, &folder));
        }
    }
    published_all(&server, &installation, &folder);
    server.stop();

    assert!(published(&folder) > 270, "{}", published(&folder));
    assert!(folder.join("tile/0/000").is_file() && !folder.join("tile/0/000.p").exists());
    assert!(accepts("tiles", &key, &folder));
    // Anchored by what was published alone, although `ledger.seen` is gone.
    fs::remove_file(installation.file("ledger.seen")).unwrap();
    let verify = ["ledger", "verify", "--key", key.trim()];
    run(&mut installation.command(&verify), "");

    for name in ["tile/0/000", "tile/entries/000"] {
        let file = folder.join(name);
        let whole = fs::read(&file).unwrap();
        let mut spoiled = whole.clone();
        spoiled[100] ^= 1;
        fs::write(&file, spoiled).unwrap();
        assert!(!accepts("tiles", &key, &folder), "{name}");
        fs::write(&file, whole).unwrap();
    }
}

#[test]
fn tiles_of_the_admin_listener_are_those_that_are_published() {
    let (installation, folder) = publishing(Installation::new());
    let server = installation.serve();
    for _ in 0..5 {
        server.only(&installation.issuer.token(), "npm");
    }
    published_all(&server, &installation, &folder);
    let get = |path: &str, role: &str| {
        server.admin.get(&format!("/ledger/{path}")).bearer(&installation.admin_token(role)).send()
    };
    let width = published(&folder);
    for row in ["0", "entries"] {
        let place = format!("tile/{row}/000.p/{width}");
        let answer = get(&place, "auditor");
        assert_eq!(answer.status, 200, "{answer:?}");
        // Bytes that are no text are replaced alike on both sides.
        let published = fs::read(folder.join(&place)).unwrap();
        assert_eq!(answer.body, String::from_utf8_lossy(&published), "{place}");
        get(&place, "operator").problem(403, "access_denied");
    }
    assert!(get("checkpoint", "operator").body.contains("\n\n— "));
    for place in
        ["tile/0/000", "tile/0/0.p/1", "tile/1/000", "tile/9/000", "tile/0/000.p/0", "tile/entries/001"]
    {
        get(place, "auditor").problem(404, "not_found");
    }
}

#[test]
fn duty_goes_to_another_broker_when_its_holder_is_killed_or_stops_and_the_checkpoint_only_grows() {
    let cluster = Cluster::start(None, "");
    let (installation, folder) = publishing(Installation::on(&cluster));
    let first = installation.replica(0);
    published_all(&first, &installation, &folder);
    let second = installation.replica(1);
    let (is_over, held) = (AtomicBool::new(false), fence(&folder));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut largest = 0;
            while !is_over.load(Ordering::SeqCst) {
                let now = published(&folder);
                assert!(now >= largest, "the checkpoint went from {largest} to {now}");
                largest = now;
                std::thread::yield_now();
            }
            largest
        });
        second.only(&installation.issuer.token(), "npm");
        published_all(&second, &installation, &folder);
        assert_eq!(fence(&folder), held, "one replica has the duty");
        first.crash();
        second.only(&installation.issuer.token(), "npm");
        published_all(&second, &installation, &folder);
        assert!(fence(&folder) > held, "the duty changed hands");
        // Who stops in order gives it back: the next one need not wait.
        let third = installation.replica(2);
        let held = fence(&folder);
        second.stop();
        third.only(&installation.issuer.token(), "npm");
        published_all(&third, &installation, &folder);
        assert!(fence(&folder) > held, "the duty changed hands");
        third.stop();
        is_over.store(true, Ordering::SeqCst);
        assert!(watch.join().unwrap() > 0);
    });
    assert!(accepts("tiles", &key(&installation), &folder));
}

#[test]
fn holder_that_was_paused_publishes_nothing_when_it_wakes() {
    let cluster = Cluster::start(None, "");
    let (installation, folder) = publishing(Installation::on(&cluster));
    let (first, second) = (installation.replica(0), installation.replica(1));
    published_all(&first, &installation, &folder);
    let held = fence(&folder);
    let holds = |server: &Server| server.logs().matches("this replica publishes the ledger").count();
    let (holder, other) = if holds(&first) == 1 { (first, second) } else { (second, first) };
    holder.signal(Signal::STOP);
    other.only(&installation.issuer.token(), "npm");
    published_all(&other, &installation, &folder);
    let raised = fence(&folder);
    assert!(raised > held, "the duty changed hands");

    holder.signal(Signal::CONT);
    for _ in 0..5 {
        other.only(&installation.issuer.token(), "npm");
        published_all(&other, &installation, &folder);
    }

    assert_eq!(fence(&folder), raised, "the one that woke took nothing back");
    assert_eq!(holds(&holder), 1);
    // It goes on as a broker.
    eventually("the one that was paused to serve", || {
        let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
        (holder.public.exchange(&installation.issuer.token(), &ask).status == 200).then_some(())
    });
    drop((holder, other));
    assert!(accepts("tiles", &key(&installation), &folder));
}

#[test]
fn database_behind_what_is_published_or_gone_is_refused() {
    let (installation, folder) = publishing(Installation::new());
    let server = installation.serve();
    server.only(&installation.issuer.token(), "npm");
    server.stop();
    let older = fs::read(installation.file("hallpass.db")).unwrap();
    let server = installation.serve();
    server.only(&installation.issuer.token(), "npm");
    server.stop();
    // Whoever sets the volume of the database back sets `ledger.seen` on it back, too.
    fs::remove_file(installation.file("ledger.seen")).unwrap();
    let newest = fs::read(installation.file("hallpass.db")).unwrap();
    let refused = || {
        let ended = finish(&mut installation.command(&["serve"]), "");
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };

    fs::write(installation.file("hallpass.db"), &older).unwrap();
    let (code, said) = refused();
    assert!(code == Some(30) && said.contains("public/checkpoint"), "{code:?} {said}");
    fs::remove_file(installation.file("hallpass.db")).unwrap();
    let (code, said) = refused();
    assert!(code == Some(30) && said.contains("hallpass restore"), "{code:?} {said}");
    let before = published(&folder);

    fs::write(installation.file("hallpass.db"), &newest).unwrap();
    installation.serve().stop();
    assert!(published(&folder) > before);
}

/// Two databases of one ledger, such as two servers that both believe to be the first: the second one ends.
#[test]
fn broker_of_another_history_than_the_published_one_tells_of_it_and_ends() {
    let (installation, folder) = publishing(Installation::new());
    installation.serve().stop();
    fs::copy(installation.file("hallpass.db"), installation.file("other.db")).unwrap();
    fs::create_dir(installation.file("elsewhere")).unwrap();
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let text = text
        .replace("sqlite:hallpass.db", "sqlite:other.db")
        .replace("publish: public", "publish: elsewhere");
    installation.write("other.yaml", &text.replace("seen: ledger.seen", "seen: other.seen"));
    let (first, second) = (
        installation.serve(),
        installation.serve_by(&mut installation.command(&["serve", "--config", "other.yaml"])),
    );
    for server in [&first, &second] {
        server.only(&installation.issuer.token(), "npm");
    }
    published_all(&first, &installation, &folder);

    // Now both publish into one folder.
    fs::rename(installation.file("elsewhere"), installation.file("aside")).unwrap();
    std::os::unix::fs::symlink(&folder, installation.file("elsewhere")).unwrap();

    let (status, said) = second.ended();
    assert_eq!(status.code(), Some(30), "{said}");
    assert!(said.contains("ALERT_ROLLBACK"), "{said}");
    first.only(&installation.issuer.token(), "npm");
    published_all(&first, &installation, &folder);
    assert!(accepts("tiles", &key(&installation), &folder));
}

#[test]
fn unguarded_is_said_by_doctor_readiness_and_started() {
    let (installation, folder) = publishing(Installation::new());
    let server = installation.serve();
    let ready = server.admin.get("/readyz").send().ok();
    // Folder and database are on one volume here.
    assert!(ready["warnings"][0].as_str().unwrap().starts_with("rollback unguarded"), "{ready}");
    assert_eq!(server.entries("STARTED")[0]["result"]["rollback"], "unguarded");
    let doctor = finish(&mut installation.command(&["doctor"]), "");
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("rollback unguarded"), "{doctor:?}");

    // A folder that is not there is told, and served none the less: what is published already stays.
    fs::rename(&folder, installation.file("away")).unwrap();
    let told = |words: &str| {
        let ready = server.admin.get("/readyz").send().ok();
        ready["warnings"][0].as_str().is_some_and(|said| said.contains(words)).then_some(())
    };
    eventually("the missing folder to be told", || told("is not published"));
    server.only(&installation.issuer.token(), "npm");
    fs::rename(installation.file("away"), &folder).unwrap();
    eventually("publishing to go on", || told("keep `ledger.seen`"));
    published_all(&server, &installation, &folder);

    // A folder that is not there is no place to begin in.
    fs::rename(&folder, installation.file("away")).unwrap();
    server.stop();
    let refused = finish(&mut installation.command(&["serve"]), "");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(!folder.exists());
    fs::rename(installation.file("away"), &folder).unwrap();

    // On another volume it is guarded.
    let shared = tempfile::Builder::new().prefix("hallpass-").tempdir_in("/dev/shm").unwrap();
    let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let elsewhere = format!("publish: {},", shared.path().display());
    installation.write("hallpass.yaml", &configuration.replace("publish: public,", &elsewhere));
    let server = installation.serve();
    assert!(server.admin.get("/readyz").send().ok().get("warnings").is_none());
    assert_eq!(server.entries("STARTED")[0]["result"]["rollback"], "guarded");
}

//! How fresh keys are kept without anybody asking, what a file's editor sees, and who waits for whom.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

impl Scene {
    fn issuer(&self) -> &Arc<Issuer> {
        self.keys.issuers.get(&ci()).unwrap()
    }

    /// One look of the task beside the requests, at this second; answers whether it asked the issuer.
    async fn look_at(&self, seconds: i64) -> bool {
        self.clock.set(seconds);
        look(&self.keys, self.issuer()).await
    }

    fn warnings(&self) -> Vec<String> {
        warnings(&self.keys)
    }
}

async fn look(keys: &IssuerKeys, issuer: &Arc<Issuer>) -> bool {
    let begun = issuer.attempts().begun;
    keys.look(issuer).await;
    settle(issuer).await;
    issuer.attempts().begun != begun
}

async fn settle(issuer: &Issuer) {
    let running = || issuer.attempts().running.then(|| Refresh(issuer.ended.subscribe()));
    while let Some(refresh) = running() {
        refresh.ended().await;
    }
}

fn warnings(keys: &IssuerKeys) -> Vec<String> {
    keys.standing().into_iter().flat_map(|issuer| issuer.warnings).collect()
}

// ------------------------------------------------------------------------------------------------- beside requests

#[tokio::test]
async fn an_issuer_that_was_down_comes_back_without_a_job() {
    let scene = Scene::new().await;
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    assert!(scene.look_at(0).await, "it is asked at once");
    for seconds in [1, 30, 59] {
        assert!(!scene.look_at(seconds).await, "within the cool-down: {seconds}");
    }
    assert!(scene.look_at(75).await, "a quarter of jitter at most");
    assert_eq!(faults(&scene.keys), ["the discovery document: the answer has status 502"]);

    scene.server.now_answers(Answers::Keys(keys(&["k1"])));
    assert!(!scene.look_at(75 + 119).await, "twice as long after the second failure");
    assert!(scene.look_at(75 + 150).await);

    assert!(faults(&scene.keys).is_empty());
    assert_eq!(scene.find("k1").await, Ok(()));
    assert_eq!(scene.server.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_stays_down_is_asked_ever_less() {
    let scene = Scene::new().await;
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    let mut asked = Vec::new();
    for seconds in (0..HOUR).step_by(5) {
        if scene.look_at(seconds).await {
            asked.push(seconds);
        }
    }
    // 60 s, 120 s, 240 s, then 300 s, each and up to a quarter and a look more.
    assert!((11..=14).contains(&asked.len()), "{asked:?}");
    assert!(asked.windows(2).all(|pair| (60..=380).contains(&(pair[1] - pair[0]))), "{asked:?}");
}

#[tokio::test]
async fn a_job_in_need_asks_before_the_next_look_would() {
    let scene = Scene::new().await;
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    for seconds in (0..HOUR).step_by(5) {
        scene.look_at(seconds).await;
    }
    let last = scene.issuer().attempts().last.unwrap().as_second() - START;
    scene.server.now_answers(Answers::Keys(keys(&["k1"])));
    scene.clock.set(last + MINUTE);
    assert_eq!(scene.find("k1").await, Ok(()), "no longer than the cool-down");
}

#[tokio::test]
async fn a_set_that_is_kept_fresh_makes_no_request_wait() {
    let scene = Scene::new().await;
    let mut asked = 0;
    for seconds in (0..6 * HOUR).step_by(10) {
        asked += i64::from(scene.look_at(seconds).await);
        assert!(matches!(scene.issuer().owed(scene.keys.now.as_ref()()), Owed::Nothing | Owed::Beside));
    }
    assert!((9..=13).contains(&asked), "about twice an hour: {asked}");
}

#[tokio::test]
async fn a_withdrawn_key_goes_without_a_job() {
    let scene = Scene::new().await;
    assert!(scene.look_at(0).await);
    scene.server.now_answers(Answers::Keys(keys(&["k2"])));
    let seen = scene.server.requests.load(Ordering::SeqCst);
    for seconds in (0..HOUR).step_by(10) {
        scene.look_at(seconds).await;
    }
    assert!(scene.server.requests.load(Ordering::SeqCst) > seen);
    assert!(scene.issuer().held.load().as_ref().unwrap().set.find("k1", Algorithm::Es256).is_none());
}

#[tokio::test]
async fn a_set_is_good_for_as_long_as_its_answer_says() {
    for (control, good_for) in [
        ("max-age=120", 2 * MINUTE),
        ("public, max-age=600", 10 * MINUTE),
        ("max-age=0, private, must-revalidate", MINUTE),
        ("no-store", MINUTE),
        ("max-age=86400", 59 * MINUTE),
        ("public", 59 * MINUTE),
    ] {
        let scene = Scene::new().await;
        scene.server.now_answers(Answers::Kept(keys(&["k1"]), control));
        assert_eq!(scene.find("k1").await, Ok(()), "{control}");
        scene.server.now_answers(Answers::Keys(keys(&["k2"])));
        scene.clock.set(good_for / 2 - 1);
        assert_eq!(scene.find("k1").await, Ok(()), "{control}");
        scene.settle().await;
        assert_eq!(scene.server.asked(), 1, "{control}: too early");
        scene.clock.set(good_for);
        assert_eq!(scene.find("k1").await, Err(Fault::Unknown), "{control}");
        assert_eq!(scene.server.asked(), 2, "{control}");
    }
}

#[tokio::test]
async fn an_operator_need_not_wait_for_the_cool_down() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Keys(keys(&["k2"])));
    scene.clock.set(1);
    scene.keys.refresh_at_once();
    scene.settle().await;
    assert_eq!(scene.find("k1").await, Err(Fault::Unknown));
    assert_eq!(scene.find("k2").await, Ok(()));
    assert_eq!(scene.server.asked(), 2);
}

// ------------------------------------------------------------------------------------------------- outages, waiting

#[tokio::test]
async fn keys_of_an_issuer_that_is_away_are_used_without_waiting_for_it() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    scene.clock.set(HOUR);
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.settle().await;
    let warning =
        "the discovery document: the answer has status 502; the keys held stay usable until 2026-09-22T";
    assert!(scene.warnings()[0].starts_with(warning), "{:?}", scene.warnings());

    scene.server.held.send_replace(true);
    scene.clock.set(3 * HOUR);
    assert_eq!(scene.find("k1").await, Ok(()), "the refresh hangs");
    assert!(scene.issuer().attempts().running);
    scene.server.held.send_replace(false);
}

#[tokio::test]
async fn it_says_when_it_is_worth_asking_again() {
    let scene = Scene::new().await;
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    for (seconds, expected) in [(0, 60), (15, 46), (59, 2), (60, 60)] {
        scene.clock.set(seconds);
        let fault = scene.keys.key(&ci(), &token("k1", "ES256")).await.err();
        assert_eq!(fault, Some(KeyFault::Unavailable { retry_after_seconds: expected }), "{seconds}");
    }
}

#[tokio::test]
async fn waiters_for_one_issuer_leave_room_for_everybody_else() {
    let hung = Server::start(Answers::Keys(keys(&["k1"]))).await;
    hung.held.send_replace(true);
    let well = Server::start(Answers::Keys(keys(&["k1"]))).await;
    let mut hung_config = config(hung.url(), KeysFrom::Discovery);
    hung_config.name = IssuerName::parse("hung").unwrap();
    let configs = vec![hung_config, config(well.url(), KeysFrom::Discovery)];
    let keys = Arc::new(IssuerKeys::new(configs, TestClock::default().now()).unwrap().with_most_waiting(3));
    assert_eq!(find(&keys, "k1").await, Ok(()));

    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let keys = Arc::clone(&keys);
        waiters.spawn(async move {
            keys.key(&IssuerName::parse("hung").unwrap(), &token("k1", "ES256")).await.map(|_| ())
        });
    }
    for _ in 0..17 {
        let refused = waiters.join_next().await.unwrap().unwrap();
        assert!(matches!(refused, Err(KeyFault::Unavailable { .. })), "{refused:?}");
    }
    assert_eq!(find(&keys, "k1").await, Ok(()), "one whose keys are held needs no place");
    hung.held.send_replace(false);
    assert_eq!(waiters.join_all().await, [Ok(()); 3]);
    assert_eq!(hung.asked(), 1);
}

// --------------------------------------------------------------------------------------------------------- key files

/// Keys in a file that are good for 30 days.
struct OnDisk {
    path: PathBuf,
    clock: TestClock,
    keys: IssuerKeys,
    _folder: tempfile::TempDir,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let clock = TestClock::default();
        let valid_until = Some(Timestamp::from_second(START + 30 * 24 * HOUR).unwrap());
        let source = KeysFrom::File { path: path.clone(), valid_until };
        let config = config("https://issuer.test".to_owned(), source);
        let keys = IssuerKeys::new(vec![config], clock.now()).unwrap();
        Self { path, clock, keys, _folder: folder }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).unwrap();
    }

    fn mode(&self, mode: u32) {
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    async fn look(&self) -> bool {
        look(&self.keys, self.keys.issuers.get(&ci()).unwrap()).await
    }
}

#[tokio::test]
async fn an_edited_key_file_is_read_at_the_next_look() {
    let disk = OnDisk::new();
    assert!(disk.look().await, "there is none yet");
    assert!(!disk.look().await);
    disk.write(&keys(&["k1"]).to_string());
    assert!(disk.look().await, "it appeared");
    assert_eq!(find(&disk.keys, "k1").await, Ok(()));
    assert!(!disk.look().await);

    disk.write(&keys(&["k2"]).to_string());
    assert!(disk.look().await, "it was edited, and no cool-down holds that off");
    assert_eq!(find(&disk.keys, "k1").await, Err(Fault::Unknown));
    assert_eq!(find(&disk.keys, "k2").await, Ok(()));

    // As a mounted volume does it: another file under the same name.
    let next = disk.path.with_file_name("next");
    std::fs::write(&next, keys(&["k3"]).to_string()).unwrap();
    std::fs::rename(&next, &disk.path).unwrap();
    assert!(disk.look().await);
    assert_eq!(find(&disk.keys, "k3").await, Ok(()));
}

#[tokio::test]
async fn a_bad_key_file_replaces_nothing() {
    let disk = OnDisk::new();
    disk.write(&keys(&["k1"]).to_string());
    assert!(disk.look().await);
    for (text, expected) in [
        ("{\"keys\":[", "the key set is not strict JSON"),
        ("{\"keys\":[]}", "the key set has no usable key"),
        ("<html>", "the key set is not strict JSON"),
    ] {
        disk.write(text);
        assert!(disk.look().await, "{text}");
        assert_eq!(find(&disk.keys, "k1").await, Ok(()), "{text}");
        assert!(warnings(&disk.keys)[0].starts_with(expected), "{:?}", warnings(&disk.keys));
    }
    std::fs::remove_file(&disk.path).unwrap();
    assert!(disk.look().await, "it is gone");
    assert_eq!(find(&disk.keys, "k1").await, Ok(()));
    disk.write(&keys(&["k2"]).to_string());
    assert!(disk.look().await);
    assert_eq!((find(&disk.keys, "k2").await, warnings(&disk.keys)), (Ok(()), Vec::new()));
}

#[tokio::test]
async fn what_is_no_file_is_not_waited_for() {
    for path in ["/dev/zero", "/proc", "/dev/full"] {
        let source = KeysFrom::File { path: path.into(), valid_until: None };
        let config = config("https://issuer.test".to_owned(), source);
        let keys = IssuerKeys::new(vec![config], TestClock::default().now()).unwrap();
        assert_eq!(find(&keys, "k1").await, UNAVAILABLE);
        assert_eq!(faults(&keys), ["the key file is no file"], "{path}");
    }
}

#[tokio::test]
async fn a_key_file_warns_two_weeks_before_its_date() {
    let disk = OnDisk::new();
    disk.write(&keys(&["k1"]).to_string());
    disk.mode(0o644);
    let day = 24 * HOUR;
    disk.clock.set(16 * day - 1);
    assert!(disk.look().await);
    assert_eq!((warnings(&disk.keys), disk.keys.forewarnings()), (Vec::new(), Vec::new()));

    let end = Timestamp::from_second(START + 30 * day - 1).unwrap().to_zoned(TimeZone::UTC).date();
    let expected = format!("the keys in the file are good until {end}; ");
    for seconds in [16 * day, 30 * day - 1] {
        disk.clock.set(seconds);
        disk.look().await;
        assert_eq!(find(&disk.keys, "k1").await, Ok(()), "it is good all the same");
        assert!(warnings(&disk.keys)[0].starts_with(&expected), "{:?}", warnings(&disk.keys));
        assert!(disk.keys.forewarnings()[0].1.starts_with(&expected));
        assert!(faults(&disk.keys).is_empty());
    }
    disk.clock.set(30 * day);
    assert_eq!(find(&disk.keys, "k1").await, UNAVAILABLE);
    assert_eq!(faults(&disk.keys), ["the date of the key file is over"]);
    assert_eq!(disk.keys.forewarnings().len(), 1, "config check says so too");
}

#[tokio::test]
async fn a_key_file_that_anybody_may_write_is_told() {
    let disk = OnDisk::new();
    disk.write(&keys(&["k1"]).to_string());
    disk.mode(0o646);
    let expected = "anybody on this machine may write the key file; chmod o-w";
    assert_eq!(disk.keys.forewarnings(), [(ci(), expected.to_owned())]);
    assert!(disk.look().await);
    assert_eq!(warnings(&disk.keys), [expected]);
    disk.mode(0o640);
    assert!(disk.look().await, "a mode is an edit too");
    assert!(warnings(&disk.keys).is_empty());
}

// --------------------------------------------------------------------------------------------------------- the manual

#[test]
fn the_manual_states_these_times() {
    let page = include_str!("../../../manual/issuers.rs");
    let minutes = |time: SignedDuration| format!("{} min", time.as_mins());
    for (what, time) in [
        ("cool-down", format!("{} s", COOL_DOWN.as_secs())),
        ("least life of a set", minutes(Life::said(Some(Duration::ZERO)).greatest())),
        ("greatest life of a set", minutes(Life::said(None).greatest())),
        ("keys of an issuer that cannot be reached", format!("{} h", GREATEST_AGE.as_hours())),
        ("first retry", format!("{} s", retry(1).as_secs())),
        ("later retries", minutes(retry(u32::MAX))),
        ("look at a key file", format!("{} s", LOOK.as_secs())),
        ("warning before a key file's date", format!("{} d", FOREWARNING.as_hours() / 24)),
        ("largest document", format!("{} KiB", DOCUMENT_BYTES / 1024)),
    ] {
        let row = format!("//! | {what} | {time} |");
        assert_eq!(page.matches(&row).count(), 1, "no row `{row}`");
    }
}

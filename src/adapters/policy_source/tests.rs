use std::os::unix::fs::symlink;

use super::*;

const COMMIT: &str = "9f3182061f1e2cca4702c368cbc039b7dc9d4485";

struct Fixture {
    home: tempfile::TempDir,
    source: PolicySource,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let source = PolicySource::new(home.path().join("policies")).at_pace(QUICK);
        let fixture = Self { home, source };
        fixture.write("policies/issuers/github.yaml", "issuer: github\n");
        fixture.write("policies/grants/a/b.yaml", "grant: b\n");
        fixture
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.source.read().unwrap().0.0.into_keys().collect()
    }

    fn commit(&self) -> Option<String> {
        self.source.read().unwrap().1
    }

    fn fault(&self) -> &'static str {
        self.source.read().map(|_| ()).unwrap_err().code()
    }
}

/// The order of things is the same at any pace.
const QUICK: Pace = Pace {
    poll: Duration::from_millis(1),
    full: Duration::from_secs(3600),
    settle: Duration::from_millis(1),
    patience: Duration::from_millis(20),
};

#[test]
fn reads_every_file_by_its_path() {
    let fixture = Fixture::new();
    fixture.write("policies/README.md", "hello");
    assert_eq!(fixture.names(), ["README.md", "grants/a/b.yaml", "issuers/github.yaml"]);
    let (files, _) = fixture.source.read().unwrap();
    assert_eq!(files.0["grants/a/b.yaml"], b"grant: b\n");
}

#[test]
fn names_with_a_leading_dot_are_not_there() {
    let fixture = Fixture::new();
    let digest = fixture.source.read().unwrap().0.digest();
    fixture.write("policies/.draft.yaml", "x");
    fixture.write("policies/grants/.hidden/c.yaml", "x");
    fixture.write("policies/.git/config", "x");
    assert_eq!(fixture.source.read().unwrap().0.digest(), digest);
}

#[test]
fn digest_tells_names_and_bytes_apart() {
    let fixture = Fixture::new();
    let digest = || fixture.source.read().unwrap().0.digest();
    let first = digest();
    fixture.write("policies/grants/a/b.yaml", "grant: c\n");
    let second = digest();
    assert_ne!(first, second);
    fs::rename(fixture.path("policies/grants/a/b.yaml"), fixture.path("policies/grants/a/c.yaml")).unwrap();
    assert_ne!(second, digest());
}

#[test]
fn symlinks_resolve_inside_the_root() {
    let fixture = Fixture::new();
    fixture.write("policies/..2026/c.yaml", "grant: c\n");
    symlink("..2026", fixture.path("policies/..data")).unwrap();
    symlink("../..data/c.yaml", fixture.path("policies/grants/c.yaml")).unwrap();
    symlink("a", fixture.path("policies/grants/again")).unwrap();
    assert_eq!(
        fixture.names(),
        ["grants/a/b.yaml", "grants/again/b.yaml", "grants/c.yaml", "issuers/github.yaml"]
    );
}

#[test]
fn symlinks_out_of_the_root_are_refused() {
    let fixture = Fixture::new();
    fixture.write("policies-evil/d.yaml", "grant: d\n");
    for target in ["/etc/passwd", "../../policies-evil/d.yaml", "../../policies-evil", "/"] {
        let link = fixture.path("policies/grants/link.yaml");
        symlink(target, &link).unwrap();
        assert_eq!(fixture.fault(), "policy-escape", "{target}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn symlinks_that_lead_nowhere_or_back_are_refused() {
    let fixture = Fixture::new();
    let link = fixture.path("policies/grants/link");
    for (target, code) in
        [("gone", "policy-unreadable"), ("link", "policy-unreadable"), ("..", "policy-cycle")]
    {
        symlink(target, &link).unwrap();
        assert_eq!(fixture.fault(), code, "{target}");
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn root_may_be_a_symlink_that_is_swapped() {
    let fixture = Fixture::new();
    fixture.write("next/issuers/other.yaml", "issuer: other\n");
    let current = fixture.path("current");
    symlink("policies", &current).unwrap();
    let source = PolicySource::new(&current);
    let before = (source.fingerprint().unwrap(), source.read().unwrap().0.digest());
    fs::remove_file(&current).unwrap();
    symlink("next", &current).unwrap();
    let after = (source.fingerprint().unwrap(), source.read().unwrap().0.digest());
    assert!(before.0 != after.0 && before.1 != after.1);
}

#[test]
fn what_is_no_file_is_refused_without_opening_it() {
    let fixture = Fixture::new();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("policies/grants/s.yaml")).unwrap();
    assert_eq!(fixture.fault(), "policy-not-a-file");
}

#[test]
fn names_that_are_no_plain_text_are_refused() {
    let fixture = Fixture::new();
    fixture.write("policies/grants/a\nb.yaml", "x");
    assert_eq!(fixture.fault(), "policy-name");
}

#[test]
fn absent_directory_is_a_fault_and_no_empty_set() {
    let fixture = Fixture::new();
    fs::remove_dir_all(fixture.source.root()).unwrap();
    assert_eq!(fixture.fault(), "policy-unreadable");
    assert!(fixture.source.fingerprint().is_err());
}

#[test]
fn commit_is_read_from_branch_packed_refs_detached_head_and_worktree() {
    let fixture = Fixture::new();
    assert_eq!(fixture.commit(), None);

    fixture.write(".git/HEAD", "ref: refs/heads/main\n");
    assert_eq!(fixture.commit(), None);
    fixture.write(
        ".git/packed-refs",
        &format!("# pack-refs with: peeled\n{COMMIT} refs/heads/main\n^{COMMIT}\n"),
    );
    assert_eq!(fixture.commit().as_deref(), Some(COMMIT));

    let newer = COMMIT.replace('9', "8");
    fixture.write(".git/refs/heads/main", &format!("{newer}\n"));
    assert_eq!(fixture.commit().as_deref(), Some(newer.as_str()));

    fixture.write(".git/HEAD", &format!("{COMMIT}\n"));
    assert_eq!(fixture.commit().as_deref(), Some(COMMIT));

    fixture.write(".git/worktrees/p/HEAD", "ref: refs/heads/main\n");
    fixture.write(".git/worktrees/p/commondir", "../..\n");
    fixture.write("policies/.git", "gitdir: ../.git/worktrees/p\n");
    assert_eq!(fixture.commit().as_deref(), Some(newer.as_str()));
}

#[test]
fn head_that_names_no_commit_names_none() {
    let fixture = Fixture::new();
    fixture.write(".git/config", COMMIT);
    for head in ["ref: refs/../config", "ref: ../config", "ref: /etc/passwd", "9f31", "", "ref: HEAD"] {
        fixture.write(".git/HEAD", head);
        assert_eq!(fixture.commit(), None, "{head}");
    }
}

#[tokio::test]
async fn settles_once_two_reads_agree() {
    let fixture = Fixture::new();
    let settled = fixture.source.settle(None).await.unwrap();
    assert_eq!(settled.files.0.len(), 2);
}

#[tokio::test]
async fn git_at_work_is_waited_for_but_not_for_what_was_accepted() {
    let fixture = Fixture::new();
    let accepted = fixture.source.read().unwrap().0.digest();
    fixture.write(".git/HEAD", COMMIT);
    fixture.write(".git/index.lock", "");
    let restless = fixture.source.settle(None).await.map(|_| ()).unwrap_err();
    assert_eq!(restless.to_string(), "the policy directory does not stand still: git holds .git/index.lock");
    let settled = fixture.source.settle(Some(accepted)).await.unwrap();
    assert_eq!(settled.commit.as_deref(), Some(COMMIT));

    fs::remove_file(fixture.path(".git/index.lock")).unwrap();
    fixture.source.settle(None).await.unwrap();
}

#[test]
fn only_two_equal_reads_in_a_row_agree() {
    let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
    let mut agreement = Agreement { accepted: None, before: None };
    let mut reached = |digest, commit, is_locked| agreement.reached(digest, commit, is_locked);
    assert!(!reached(one, None, false));
    assert!(!reached(two, None, false));
    assert!(!reached(one, None, false));
    assert!(!reached(one, Some(COMMIT), false));
    assert!(!reached(one, Some(COMMIT), true));
    assert!(reached(one, Some(COMMIT), false));

    let mut agreement = Agreement { accepted: Some(two), before: None };
    assert!(!agreement.reached(one, None, false));
    assert!(agreement.reached(two, None, true));
}

#[tokio::test]
async fn watch_names_its_reason() {
    let fixture = Fixture::new();
    let mut watch = Watch::new(fixture.source.clone());

    fixture.write("policies/grants/a/b.yaml", "grant: other\n");
    assert_eq!(watch.next().await, Reason::Changed);

    let reload = watch.reload();
    reload.ask();
    reload.ask();
    assert_eq!(watch.next().await, Reason::Reload);

    fs::remove_dir_all(fixture.source.root()).unwrap();
    assert_eq!(watch.next().await, Reason::Changed);

    let hurried = Pace { full: Duration::ZERO, ..QUICK };
    assert_eq!(Watch::new(fixture.source.clone().at_pace(hurried)).next().await, Reason::Due);
}

/// The policies that the repository shows to newcomers, and what they say of the fixture's job.
mod samples {
    use jiff::Timestamp;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::kernel::{
        identity::{JobIdentity, profile::Profile},
        name::IssuerName,
        policy::{PolicySet, decide, load},
    };

    fn set() -> PolicySet {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
        let (files, commit) = PolicySource::new(root).read().unwrap();
        load::load(&files, commit, None).unwrap_or_else(|findings| panic!("{findings:#?}")).set
    }

    fn usable(spoil: &[(&str, Value)]) -> Vec<String> {
        let text = include_str!("../../../tests/fixtures/claims/github-actions.json");
        let mut claims: Map<String, Value> = serde_json::from_str(text).unwrap();
        for (name, value) in spoil {
            claims.insert((*name).to_owned(), value.clone());
            claims.retain(|_, value| !value.is_null());
        }
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let profile = Profile::by_name("github-actions").unwrap();
        let identity =
            JobIdentity::from_claims(IssuerName::parse("github").unwrap(), profile, claims, now).unwrap();
        decide::usable(&set(), &identity, now)
            .into_iter()
            .map(|usable| usable.grant.name.to_string())
            .collect()
    }

    #[test]
    fn samples_load_and_give_the_deploy_its_grants_alone() {
        assert_eq!(usable(&[]), ["payments-db", "payments-prod"]);
    }

    #[test]
    fn samples_refuse_what_is_not_quite_the_deploy() {
        for (claim, value) in [
            ("repository_owner_id", json!("9999")),
            ("repository_id", json!("702")),
            ("repository", json!("acme/payments-2")),
            ("ref", json!("refs/heads/dev")),
            ("event_name", json!("pull_request_target")),
            ("environment", json!("staging")),
            ("job_workflow_ref", json!("acme/ci/.github/workflows/deploy.yml@refs/heads/main")),
            ("job_workflow_ref", json!("acme/ci/.github/workflows/deploy.yml@refs/tags/v4/x")),
            ("job_workflow_ref", Value::Null),
        ] {
            // The database is asked for by the repository's id, which a rename keeps, and from no shared workflow.
            let of_db = matches!(claim, "repository" | "job_workflow_ref");
            let left = if of_db { vec!["payments-db"] } else { Vec::new() };
            assert_eq!(usable(&[(claim, value.clone())]), left, "{claim} {value}");
        }
    }

    #[test]
    fn samples_cover_pull_requests_shared_workflows_and_contractors() {
        let pull = [("event_name", json!("pull_request")), ("ref", json!("refs/pull/7/merge"))];
        assert!(usable(&pull).is_empty(), "an environment is claimed");
        let pull = [pull.as_slice(), &[("environment", Value::Null)]].concat();
        assert_eq!(usable(&pull), ["payments-test"]);

        let release = [
            ("repository_id", json!("703")),
            ("repository", json!("acme/tool")),
            ("ref", json!("refs/tags/v1.0")),
            ("job_workflow_ref", json!("acme/platform/.github/workflows/release.yml@refs/tags/v2.7")),
        ];
        assert_eq!(usable(&release), ["release-signing"]);

        let vendor = [
            ("repository_owner_id", json!("88001")),
            ("repository_id", json!("5550123")),
            ("event_name", json!("workflow_dispatch")),
        ];
        assert_eq!(usable(&vendor), ["vendor-migration"]);
        let robot = [vendor.as_slice(), &[("ref", json!("refs/heads/dependabot/cargo/x"))]].concat();
        assert!(usable(&robot).is_empty());
    }
}

//! A real directory: OpenLDAP's slapd with a database of its own, on loopback.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{
    component::{Component, folder, free_port},
    eventually,
};

/// The administrator's password.
pub(crate) const PASSWORD: &str = "of-the-administrator-of-this-test";
/// Who has it.
pub(crate) const ADMINISTRATOR: &str = "cn=admin,dc=test";

/// A running directory with the unit `ou=jobs,dc=test`.
pub(crate) struct Slapd {
    pub(crate) url: String,
    root: PathBuf,
    // Stopped before its folder goes.
    _server: Component,
    folder: TempDir,
}

impl Slapd {
    pub(crate) fn start() -> Self {
        let (folder, root) = (folder("slapd"), root());
        let here = folder.path().display();
        let parts = root.display();
        let configuration = format!(
            "include {parts}/etc/ldap/schema/core.schema\nmodulepath {parts}/usr/lib/ldap\nmoduleload back_mdb\n\
             database mdb\nsuffix \"dc=test\"\nrootdn \"{ADMINISTRATOR}\"\nrootpw {PASSWORD}\ndirectory {here}/data\n"
        );
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("slapd.conf"), configuration).unwrap();
        fs::write(folder.path().join("base.ldif"), BASE).unwrap();
        let program = |name: &str| {
            let mut command = program(&root, &format!("usr/sbin/{name}"));
            command.args(["-f", "slapd.conf"]).current_dir(folder.path());
            command
        };
        let added = program("slapadd").args(["-l", "base.ldif"]).output().unwrap();
        assert!(added.status.success(), "{added:?}");
        let url = format!("ldap://127.0.0.1:{}", free_port());
        let mut server =
            Component::spawn("slapd", program("slapd").args(["-h", &url, "-d", "0"]), folder.path());
        eventually("a directory that answers", || {
            server.check_alive();
            binds(&root, &url, &folder, (ADMINISTRATOR, PASSWORD)).then_some(())
        });
        Self { url, root, _server: server, folder }
    }

    /// Whether somebody comes in with that password.
    pub(crate) fn binds(&self, name: &str, password: &str) -> bool {
        binds(&self.root, &self.url, &self.folder, (name, password))
    }
}

/// A program of the packages, with the libraries that came out of them.
fn program(root: &Path, name: &str) -> Command {
    let mut command = Command::new(root.join(name));
    if root != Path::new("/") {
        let folders = fs::read_dir(root.join("usr/lib")).unwrap().map(|entry| entry.unwrap().path());
        let libraries = folders.filter(|folder| folder.to_string_lossy().ends_with("-linux-gnu"));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    }
    command
}

fn binds(root: &Path, url: &str, folder: &TempDir, (name, password): (&str, &str)) -> bool {
    let file = folder.path().join("password");
    fs::write(&file, password).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let mut whoami = program(root, "usr/bin/ldapwhoami");
    whoami.args(["-x", "-H", url, "-D", name, "-y"]).arg(&file);
    whoami.output().unwrap().status.success()
}

/// The root below which Debian's packages lie: the machine's own, or where `.ci/run` took them out.
fn root() -> PathBuf {
    let cache = std::env::var_os("HALLPASS_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/hallpass"));
    let unpacked = cache.or(home).map(|cache| cache.join("openldap"));
    let has_both = |root: &PathBuf| {
        ["usr/sbin/slapd", "usr/bin/ldapwhoami"].into_iter().all(|program| root.join(program).is_file())
    };
    [Some(PathBuf::from("/")), unpacked]
        .into_iter()
        .flatten()
        .find(has_both)
        .expect("slapd and ldapwhoami: run .ci/run, or install slapd and ldap-utils")
}

const BASE: &str = "\
dn: dc=test
objectClass: dcObject
objectClass: organization
o: test
dc: test

dn: ou=jobs,dc=test
objectClass: organizationalUnit
ou: jobs
";

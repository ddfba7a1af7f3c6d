//! The documents of our own issuer as files, for a bucket or a web server at the issuer's URL: then no cloud ever calls
//! the broker itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::adapters::mint::Assertions;

/// Writes them below the folder that is served at the issuer's URL, as they are at that time; answers the files that
/// changed. Keys come before the document that names them.
///
/// # Errors
///
/// Whatever the folder says.
pub(crate) fn write(folder: &Path, assertions: &Assertions, now: Timestamp) -> io::Result<Vec<PathBuf>> {
    let folder = folder.join(".well-known");
    fs::create_dir_all(&folder)?;
    let documents = [
        ("jwks.json", assertions.jwks(now).to_string()),
        ("openid-configuration", assertions.openid_configuration().to_string()),
    ];
    let mut changed = Vec::new();
    for (name, text) in documents {
        let file = folder.join(name);
        if fs::read(&file).is_ok_and(|found| found == text.as_bytes()) {
            continue;
        }
        replace(&folder, name, text.as_bytes())?;
        changed.push(file);
    }
    Ok(changed)
}

/// Whole or not at all: whoever reads meanwhile reads the old file or the new one. The draft is this process's own, since
/// several brokers may write to one folder.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(name))?;
    File::open(folder)?.sync_all()
}

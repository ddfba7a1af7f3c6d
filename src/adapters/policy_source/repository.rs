//! What git says of a directory, by reading git's own files.
//!
//! Source: `gitrepository-layout(5)` for `HEAD`, `gitdir:`, `commondir` and `packed-refs`. A repository that keeps its
//! refs in reftables names no commit here.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// A git repository, read as files: no git binary, no library, nothing of it is trusted but the name of a commit.
pub(super) struct Repository {
    /// Where `HEAD` and `index.lock` are.
    own: PathBuf,
    /// Where branches are: another place in a worktree.
    common: PathBuf,
}

impl Repository {
    /// The repository that a directory is in.
    pub(super) fn around(directory: &Path) -> Option<Self> {
        let own = directory.ancestors().find_map(|each| {
            let dot_git = each.join(".git");
            if dot_git.is_dir() {
                return Some(dot_git);
            }
            let pointer = small_text(&dot_git)?;
            Some(each.join(pointer.strip_prefix("gitdir:")?.trim()))
        })?;
        let common =
            small_text(&own.join("commondir")).map_or_else(|| own.clone(), |common| own.join(common.trim()));
        Some(Self { own, common })
    }

    /// Whether a git command is changing the working tree.
    pub(super) fn is_locked(&self) -> bool {
        self.own.join("index.lock").exists()
    }

    /// The commit that is checked out.
    pub(super) fn commit(&self) -> Option<String> {
        let mut text = small_text(&self.own.join("HEAD"))?;
        for _ in 0..MAX_SYMBOLIC {
            let Some(name) = text.trim().strip_prefix("ref:") else { return object_id(&text) };
            let name = name.trim();
            let is_plain =
                name.starts_with("refs/") && name.split('/').all(|part| part != ".." && !part.is_empty());
            if !is_plain {
                return None;
            }
            text = small_text(&self.own.join(name))
                .or_else(|| small_text(&self.common.join(name)))
                .or_else(|| self.packed(name))?;
        }
        None
    }

    fn packed(&self, name: &str) -> Option<String> {
        let packed = bounded_text(&self.common.join("packed-refs"), MAX_PACKED_BYTES)?;
        packed.lines().find_map(|line| {
            let (id, ref_name) = line.split_once(' ')?;
            (ref_name == name).then(|| id.to_owned())
        })
    }
}

/// SHA-1 or SHA-256 in lower-case hex.
fn object_id(text: &str) -> Option<String> {
    let text = text.trim();
    let is_id = matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    is_id.then(|| text.to_owned())
}

fn small_text(path: &Path) -> Option<String> {
    bounded_text(path, MAX_REF_BYTES)
}

fn bounded_text(path: &Path, bytes: u64) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > bytes {
        return None;
    }
    let mut text = String::new();
    fs::File::open(path).ok()?.take(bytes).read_to_string(&mut text).ok()?;
    Some(text)
}

/// `HEAD`, a ref, `gitdir:`; the longest holds a path.
const MAX_REF_BYTES: u64 = 64 * 1024;
/// A repository with half a million branches.
const MAX_PACKED_BYTES: u64 = 64 * 1024 * 1024;
/// Refs that lead to refs; git itself follows five.
const MAX_SYMBOLIC: usize = 5;

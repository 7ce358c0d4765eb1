//! Whose the files in `.isle-staging/` are: each process that stages holds a lock on a file of its own there, which ends
//! with the process however it ends.
//!
//! ```text
//!   .isle-staging/<nonce>.lock     locked while its process lives
//!   .isle-staging/<nonce>-<n>      staged by that process
//! ```
//! Who stages for the first time clears away what processes have left whose lock is free: they are dead. A file without
//! a lock beside it (an older version's, or one whose lock lost the race below) goes by its age. Any number of processes
//! may do this at the same time; nobody who only reads does.
//!
//! **The race.** A lock file is there before it is locked, and somebody may take it for a dead one's and remove it. So
//! its owner looks again once it has the lock, and makes another.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::modified;
use crate::ids::Timestamp;

/// Folder of files that have no name yet.
pub(super) const STAGING: &str = ".isle-staging";

/// Age after which a staged file of unknown owner counts as left by a crash. A live one that is removed by mistake costs its
/// writer a retry, nothing more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How often a lock is made anew that others take for a dead one's.
const ATTEMPTS: usize = 8;

const LOCK: &str = ".lock";

/// This process's part of the folder; cleared away when it is dropped.
#[derive(Debug)]
pub(super) struct Claimed {
    folder: PathBuf,
    nonce: String,
    lock: Option<File>,
}

impl Claimed {
    /// Takes a part for the files of `nonce`, and clears away what the dead have left.
    pub(super) fn new(folder: &Path, nonce: u64, now: Timestamp) -> io::Result<Self> {
        let nonce = format!("{nonce:016x}");
        let path = folder.join(format!("{nonce}{LOCK}"));
        let mut lock = None;
        for _ in 0..ATTEMPTS {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) if path.exists() => {
                    lock = Some(file);
                    break;
                }
                // Somebody is about to remove it.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                // A file system without locks: its files go by their age.
                Err(TryLockError::Error(_)) => break,
            }
        }
        if lock.is_none() {
            let _none = fs::remove_file(&path);
        }
        let claimed = Self { folder: folder.to_path_buf(), nonce, lock };
        claimed.clear(now);
        Ok(claimed)
    }

    /// Removes what no living process can be working on. Failing to is no reason not to write.
    fn clear(&self, now: Timestamp) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let files: Vec<(PathBuf, String)> = entries
            .flatten()
            .filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
            .collect();
        let mut living = HashSet::from([self.nonce.as_str()]);
        let mut dead = Vec::new();
        for (path, name) in &files {
            let Some(nonce) = name.strip_suffix(LOCK).filter(|nonce| *nonce != self.nonce) else { continue };
            match File::open(path).map(|file| (file.try_lock(), file)) {
                // Held until everything of it is gone.
                Ok((Ok(()), file)) => dead.push((nonce, path, file)),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                _ => {
                    living.insert(nonce);
                }
            }
        }
        let horizon = now.minus(ABANDONED);
        for (path, name) in files.iter().filter(|(_, name)| !name.ends_with(LOCK)) {
            let owner = name.split('-').next().unwrap_or_default();
            let of_dead = dead.iter().any(|(nonce, ..)| *nonce == owner);
            let old = || fs::metadata(path).and_then(|m| modified(&m)).is_ok_and(|at| at < horizon);
            if (of_dead || (!living.contains(owner) && old())) && fs::remove_file(path).is_ok() {
                tracing::debug!(file = %path.display(), "removed a staged file left by a crash");
            }
        }
        for (_, path, _held) in dead {
            let _left = fs::remove_file(path);
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // Nobody of this process stages any more: what is left are uploads that were given up.
        let own = format!("{}-", self.nonce);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&own)) {
                let _left = fs::remove_file(entry.path());
            }
        }
        if self.lock.take().is_some() {
            let _left = fs::remove_file(self.folder.join(format!("{}{LOCK}", self.nonce)));
        }
    }
}

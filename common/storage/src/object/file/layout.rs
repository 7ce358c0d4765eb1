//! The directory behind a file bucket: where objects lie, how one is staged and published, which folders are known
//! to be durable.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk::Disk;
use super::staging::{Claimed, STAGING};
use crate::ids::Timestamp;
use crate::names::ObjectPath;
use crate::object::Body;

/// Whether an object of that name may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    Replace,
    IfAbsent,
}

#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    disk: Box<dyn Disk>,
    /// Tells this bucket's staged files from another process's.
    nonce: u64,
    staged: AtomicU64,
    /// When the bucket was opened.
    opened: Timestamp,
    /// This process's part of the staging folder, once it has staged something.
    claimed: Mutex<Option<Claimed>>,
    /// Whether the root was missing when the bucket was opened, and nobody has been seen to make it since.
    unmade: AtomicBool,
    /// Folders this process has made durable from the root down.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Layout {
    pub(super) fn open(root: &Path, nonce: u64, now: Timestamp, disk: Box<dyn Disk>) -> io::Result<Self> {
        let unmade = match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => false,
            Ok(_) => return Err(ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == ErrorKind::NotFound => true,
            Err(e) => return Err(e),
        };
        if unmade && !root.parent().is_some_and(Path::is_dir) {
            return Err(ErrorKind::NotFound.into());
        }
        if !unmade && let Some(parent) = root.parent() {
            sync_parent(disk.as_ref(), parent)?;
        }
        Ok(Self {
            root: root.to_path_buf(),
            disk,
            nonce,
            staged: AtomicU64::new(0),
            opened: now,
            claimed: Mutex::default(),
            unmade: AtomicBool::new(unmade),
            durable: Mutex::default(),
        })
    }

    /// Whether there is no root and never was one.
    pub(super) fn is_unmade(&self) -> bool {
        let unmade = self.unmade.load(Ordering::SeqCst) && !self.root.is_dir();
        self.unmade.store(unmade, Ordering::SeqCst);
        unmade
    }

    /// Makes the root before the first write.
    fn make_root(&self) -> io::Result<()> {
        if self.is_unmade() {
            make_folder(&self.root)?;
            if let Some(parent) = self.root.parent() {
                sync_parent(self.disk.as_ref(), parent)?;
            }
            self.unmade.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object lies.
    pub(super) fn locate(&self, path: &ObjectPath) -> io::Result<PathBuf> {
        if path.as_str() == STAGING || path.as_str().starts_with(".isle-staging/") {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{STAGING} is no place for objects"),
            ));
        }
        Ok(self.root.join(path.as_str()))
    }

    /// Nothing is found below a root that is gone, which must not be read as "there is no such object".
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        if error.kind() == ErrorKind::NotFound && self.is_unmade() {
            let message = format!("there is no directory {}", self.root.display());
            return io::Error::new(ErrorKind::NotFound, message);
        }
        if error.kind() == ErrorKind::NotFound && !self.root.is_dir() {
            let message = format!("the store's directory {} is gone", self.root.display());
            return io::Error::other(message);
        }
        error
    }

    /// Writes an object durably.
    pub(super) fn write(&self, name: &Path, body: &Body, how: Publish) -> io::Result<()> {
        let folder = name.parent().unwrap_or(&self.root);
        self.make_durable(folder)?;
        let staged = self.stage(body)?;
        self.publish(&staged, name, folder, how)
    }

    /// Gives another bucket's file, which is durable, a name here too, replacing what was there; false where the file
    /// system cannot have two names of it.
    pub(super) fn adopt(&self, source: &Path, name: &Path) -> io::Result<bool> {
        let folder = name.parent().unwrap_or(&self.root);
        self.make_durable(folder)?;
        let Some(staged) = self.stage_link(source)? else { return Ok(false) };
        let published = self.publish(&staged, name, folder, Publish::Replace);
        // A rename between two names of one file succeeds and leaves both.
        let _gone = fs::remove_file(&staged);
        published.map(|()| true)
    }

    /// A second name of `source` in staging.
    fn stage_link(&self, source: &Path) -> io::Result<Option<PathBuf>> {
        self.claim_staging()?;
        let staged = self.staged_path(&self.next_staged());
        let linked = match self.disk.link(source, &staged) {
            Err(e) if e.kind() == ErrorKind::NotFound && source.is_file() => {
                make_folder(&self.root.join(STAGING))?;
                self.disk.link(source, &staged)
            }
            linked => linked,
        };
        match linked {
            Ok(()) => Ok(Some(staged)),
            // Another file system, one without hard links, a file with as many as it takes, or one of somebody else's.
            Err(e) if cannot_link(e.kind()) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives a durable staged file its name.
    fn publish(&self, staged: &Path, name: &Path, folder: &Path, how: Publish) -> io::Result<()> {
        let published = match how {
            Publish::Replace => self.disk.rename(staged, name),
            Publish::IfAbsent => self.disk.link(staged, name),
        };
        if how == Publish::IfAbsent || published.is_err() {
            // What cannot be removed now is removed as abandoned later.
            let _left = fs::remove_file(staged);
        }
        match published {
            Ok(()) => self.disk.sync_folder(folder).map_err(unsure),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                self.disk.sync_folder(folder).map_err(unsure)?;
                Err(e)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // The folder or the staged file was removed under us: what we knew of folders no longer holds.
                self.durable.lock().clear();
                Err(unsure(e))
            }
            Err(e) => Err(e),
        }
    }

    /// A new file without a name, its bytes durable.
    fn stage(&self, body: &Body) -> io::Result<PathBuf> {
        let (_, path, mut file) = self.stage_new()?;
        let written = fill(&mut file, body).and_then(|()| self.disk.sync_file(&file, &path));
        if let Err(e) = written {
            let _left = fs::remove_file(&path);
            return Err(e);
        }
        Ok(path)
    }

    /// Takes this process's part of the staging folder, once.
    fn claim_staging(&self) -> io::Result<()> {
        let mut claimed = self.claimed.lock();
        if claimed.is_none() {
            self.make_root()?;
            let folder = self.root.join(STAGING);
            make_folder(&folder)?;
            *claimed = Some(Claimed::new(&folder, self.nonce, self.opened)?);
        }
        Ok(())
    }

    /// A new, empty file without a name.
    fn stage_new(&self) -> io::Result<(String, PathBuf, File)> {
        self.claim_staging()?;
        let id = self.next_staged();
        let path = self.staged_path(&id);
        let file = match new_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                make_folder(&self.root.join(STAGING))?;
                new_file(&path)?
            }
            file => file?,
        };
        Ok((id, path, file))
    }

    fn next_staged(&self) -> String {
        let n = self.staged.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{n}", self.nonce)
    }

    fn staged_path(&self, id: &str) -> PathBuf {
        self.root.join(STAGING).join(id)
    }

    /// Begins an object that comes in parts.
    pub(super) fn stage_empty(&self) -> io::Result<String> {
        self.stage_new().map(|(id, ..)| id)
    }

    /// Writes a part where it belongs in a staged file. It is made durable at once: so the disk has its work while the
    /// next part is made, and little is left for the end.
    pub(super) fn write_part(&self, id: &str, mut offset: u64, body: &Body) -> io::Result<()> {
        let staged = self.staged_path(id);
        let file = OpenOptions::new().write(true).open(&staged)?;
        for piece in body.pieces() {
            file.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        self.disk.sync_file(&file, &staged)
    }

    /// Gives a staged file of `len` bytes its name, durably.
    pub(super) fn publish_parts(&self, id: &str, name: &Path, len: u64) -> io::Result<()> {
        let staged = self.staged_path(id);
        let file = File::open(&staged)?;
        let found = file.metadata()?.len();
        if found != len {
            let message = format!("{found} bytes are staged, and the parts have {len}");
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let folder = name.parent().unwrap_or(&self.root);
        self.make_durable(folder)?;
        self.disk.sync_file(&file, &staged)?;
        self.publish(&staged, name, folder, Publish::Replace)
    }

    /// Removes a staged file.
    pub(super) fn unstage(&self, id: &str) -> io::Result<()> {
        fs::remove_file(self.staged_path(id))
    }

    /// Makes a folder and everything above it, up to the root, exist durably. Once per folder and process.
    fn make_durable(&self, folder: &Path) -> io::Result<()> {
        if self.durable.lock().contains(folder) {
            return Ok(());
        }
        self.make_root()?;
        if let (true, Some(parent)) = (folder != self.root, folder.parent()) {
            self.make_durable(parent)?;
            make_folder(folder)?;
            self.disk.sync_folder(parent)?;
        }
        self.durable.lock().insert(folder.to_path_buf());
        Ok(())
    }
}

/// Makes the root's own name durable. Not being allowed to read its parent is no reason to refuse: then it was there
/// before us.
fn sync_parent(disk: &dyn Disk, parent: &Path) -> io::Result<()> {
    match disk.sync_folder(parent) {
        Err(e) if e.kind() != ErrorKind::PermissionDenied => Err(e),
        _ => Ok(()),
    }
}

fn cannot_link(kind: ErrorKind) -> bool {
    use ErrorKind as E;
    matches!(kind, E::CrossesDevices | E::TooManyLinks | E::PermissionDenied | E::Unsupported)
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn fill(file: &mut File, body: &Body) -> io::Result<()> {
    body.pieces().iter().try_for_each(|piece| file.write_all(piece))
}

/// One folder, not its parents; fine if it is there.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        // A directory on a read-only mount is good enough for a reader.
        Err(e) if e.kind() == ErrorKind::ReadOnlyFilesystem && folder.is_dir() => Ok(()),
        result => result,
    }
}

/// An error after the object may have become visible: it carries a kind that reads as "may have happened".
fn unsure(error: io::Error) -> io::Error {
    io::Error::other(error)
}

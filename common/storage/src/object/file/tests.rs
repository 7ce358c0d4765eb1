//! What a file bucket promises in the face of crashes, shown by the order of its calls.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, RealDisk};
use super::layout::{Layout, Publish};
use super::staging::STAGING;
use crate::ids::Timestamp;
use crate::object::Body;

/// Does what the real disk does, writes down what it was asked, and fails where told to.
#[derive(Debug, Clone, Default)]
struct RecordingDisk {
    calls: Arc<Mutex<Vec<String>>>,
    fails: Arc<Mutex<Option<&'static str>>>,
}

impl RecordingDisk {
    fn note(&self, call: &'static str, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap().to_string_lossy();
        let staged = path.to_string_lossy().contains(STAGING);
        self.calls.lock().push(if staged { format!("{call} staged") } else { format!("{call} {name}") });
        match *self.fails.lock() {
            Some(failing) if failing == call => Err(io::Error::other("the device says no")),
            _ => Ok(()),
        }
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }
}

impl Disk for RecordingDisk {
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.note("sync", path)?;
        RealDisk.sync_file(file, path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.note("sync", folder)?;
        RealDisk.sync_folder(folder)
    }

    fn rename(&self, staged: &Path, name: &Path) -> io::Result<()> {
        self.note("rename", name)?;
        RealDisk.rename(staged, name)
    }

    fn link(&self, staged: &Path, name: &Path) -> io::Result<()> {
        self.note("link", name)?;
        RealDisk.link(staged, name)
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    disk: RecordingDisk,
    layout: Layout,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let disk = RecordingDisk::default();
    std::fs::create_dir(dir.path().join("db")).unwrap();
    let layout = Layout::open(&dir.path().join("db"), 7, Timestamp(0), Box::new(disk.clone())).unwrap();
    disk.taken();
    Fixture { dir, disk, layout }
}

impl Fixture {
    fn write(&self, path: &str, body: &'static [u8], how: Publish) -> io::Result<()> {
        self.layout.write(&self.layout.root().join(path), &Body::from(body.to_vec()), how)
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.layout.root().join(path)).ok()
    }

    fn staged(&self) -> usize {
        staged_in(self.layout.root()).len()
    }
}

/// The staged files, without locks.
fn staged_in(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(STAGING)).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

/// Local files not fsynced before the acknowledgement: the file, then its name, then its folder, then Ok; and the
/// folders above the first time.
#[test]
fn a_write_is_acknowledged_only_after_file_and_folders_are_synced() {
    let f = fixture();
    f.write("table/3f/x", b"1", Publish::Replace).unwrap();
    assert_eq!(f.disk.taken(), ["sync db", "sync table", "sync staged", "rename x", "sync 3f"]);
    f.write("table/3f/y", b"1", Publish::IfAbsent).unwrap();
    assert_eq!(f.disk.taken(), ["sync staged", "link y", "sync 3f"], "known folders are synced once");
    assert_eq!(f.staged(), 0);
}

#[test]
fn the_loser_of_a_create_answers_only_after_the_winners_name_is_durable() {
    let f = fixture();
    f.write("log/x", b"winner", Publish::IfAbsent).unwrap();
    f.disk.taken();
    let lost = f.write("log/x", b"loser", Publish::IfAbsent).unwrap_err();
    assert_eq!(lost.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(f.disk.taken(), ["sync staged", "link x", "sync log"]);
    assert_eq!(f.read("log/x").unwrap(), b"winner");
    assert_eq!(f.staged(), 0);
}

#[test]
fn a_failed_fsync_is_never_an_acknowledgement() {
    let f = fixture();
    f.write("log/warm", b"", Publish::Replace).unwrap();
    *f.disk.fails.lock() = Some("sync");
    let error = f.write("log/x", b"1", Publish::IfAbsent).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert_eq!((f.read("log/x"), f.staged()), (None, 0), "nothing became visible, nothing is left");

    *f.disk.fails.lock() = None;
    f.write("log/x", b"1", Publish::IfAbsent).unwrap();
}

/// After a failed fsync of the folder the name is visible but perhaps not durable. Repeating must not read as
/// AlreadyExists, which a retry would compare, find to be its own, and acknowledge.
#[test]
fn a_name_that_could_not_be_made_durable_is_not_durable_the_second_time_either() {
    let f = fixture();
    let layout = Layout::open(f.layout.root(), 8, Timestamp(0), Box::new(FolderFails)).unwrap();
    for _ in 0..2 {
        let body = Body::from(vec![1]);
        let error = layout.write(&f.layout.root().join("x"), &body, Publish::IfAbsent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Other, "{error}");
    }
    assert!(f.read("x").is_some(), "the case is the one meant");
}

/// A disk whose root folder cannot be synced.
#[derive(Debug)]
struct FolderFails;

impl Disk for FolderFails {
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        RealDisk.sync_file(file, path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.ends_with("db") { Err(io::Error::other("the device says no")) } else { Ok(()) }
    }

    fn rename(&self, staged: &Path, name: &Path) -> io::Result<()> {
        RealDisk.rename(staged, name)
    }

    fn link(&self, staged: &Path, name: &Path) -> io::Result<()> {
        RealDisk.link(staged, name)
    }
}

/// A link is renamed into place, and the folder synced before anybody is told; where the name is one of that file
/// already, nothing stays in staging either.
#[test]
fn a_file_of_another_bucket_is_linked_renamed_and_synced() {
    let (f, other) = (fixture(), fixture());
    other.write("table/3f/x", b"theirs", Publish::Replace).unwrap();
    let theirs = other.layout.root().join("table/3f/x");
    let ours = f.layout.root().join("table/3f/x");
    assert!(f.layout.adopt(&theirs, &ours).unwrap());
    let calls = f.disk.taken();
    assert_eq!(calls[calls.len() - 3..], ["link staged", "rename x", "sync 3f"], "{calls:?}");
    assert!(f.layout.adopt(&theirs, &ours).unwrap());
    assert_eq!((f.read("table/3f/x").unwrap(), f.staged()), (b"theirs".to_vec(), 0));
    f.write("table/3f/x", b"ours", Publish::Replace).unwrap();
    assert_eq!(other.read("table/3f/x").unwrap(), b"theirs", "a put never writes through a shared file");
    let gone = f.layout.adopt(&other.layout.root().join("table/gone"), &ours).unwrap_err();
    assert_eq!((gone.kind(), f.staged()), (io::ErrorKind::NotFound, 0));
}

#[test]
fn a_file_system_that_takes_no_second_name_is_no_failure() {
    #[derive(Debug)]
    struct NoLinks(io::ErrorKind);
    impl Disk for NoLinks {
        fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
            RealDisk.sync_file(file, path)
        }
        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            RealDisk.sync_folder(folder)
        }
        fn rename(&self, staged: &Path, name: &Path) -> io::Result<()> {
            RealDisk.rename(staged, name)
        }
        fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
            Err(self.0.into())
        }
    }
    use io::ErrorKind as E;
    let f = fixture();
    f.write("x", b"1", Publish::Replace).unwrap();
    let (x, y) = (f.layout.root().join("x"), f.layout.root().join("y"));
    for kind in [E::CrossesDevices, E::TooManyLinks, E::PermissionDenied, E::Unsupported] {
        let layout = Layout::open(f.layout.root(), 8, Timestamp(0), Box::new(NoLinks(kind))).unwrap();
        assert!(!layout.adopt(&x, &y).unwrap(), "{kind}");
    }
    let broken = Layout::open(f.layout.root(), 8, Timestamp(0), Box::new(NoLinks(E::Other))).unwrap();
    assert_eq!(broken.adopt(&x, &y).unwrap_err().kind(), E::Other);
    assert_eq!((f.read("y"), f.staged()), (None, 0));
}

/// Two processes share a directory; one makes a folder and dies before its fsync. The other must not take the
/// folder's existence for durability.
#[test]
fn a_folder_found_existing_is_synced_before_it_is_relied_on() {
    let f = fixture();
    std::fs::create_dir_all(f.layout.root().join("blob/00")).unwrap();
    f.write("blob/00/x", b"1", Publish::Replace).unwrap();
    assert_eq!(f.disk.taken()[..2], ["sync db", "sync blob"]);
}

#[test]
fn staged_files_of_a_crash_are_removed_once_old_and_young_ones_kept() {
    let f = fixture();
    let staging = f.layout.root().join(STAGING);
    std::fs::create_dir(&staging).unwrap();
    let leftover = staging.join("dead-0");
    std::fs::write(&leftover, b"torn").unwrap();
    let written = super::modified(&std::fs::metadata(&leftover).unwrap()).unwrap();
    let minute = std::time::Duration::from_secs(60);
    let opened = |nonce, at| Layout::open(f.layout.root(), nonce, at, Box::new(RealDisk)).unwrap();
    opened(8, written.plus(minute)).stage_empty().unwrap();
    assert!(leftover.exists(), "another process may be writing it");
    let late = opened(9, written.plus(minute * 61));
    assert!(leftover.exists(), "who does not write clears nothing");
    late.stage_empty().unwrap();
    assert!(!leftover.exists());
    drop(f.dir);
}

/// A killed process's staged files go with the next process that writes, however young they are; a living one's stay.
#[test]
fn staged_files_of_dead_processes_are_removed_and_those_of_living_ones_are_not() {
    let f = fixture();
    let open = |nonce| Layout::open(f.layout.root(), nonce, Timestamp(0), Box::new(RealDisk)).unwrap();
    let (living, dead) = (open(0xa), open(0xb));
    let kept = living.stage_empty().unwrap();
    let lost = dead.stage_empty().unwrap();
    // Its lock ends with it, and its files do not.
    let lock = f.layout.root().join(STAGING).join("000000000000000b.lock");
    drop(dead);
    std::fs::write(f.layout.root().join(STAGING).join(&lost), b"torn").unwrap();
    std::fs::write(&lock, b"").unwrap();
    let next = open(0xc);
    assert_eq!(staged_in(f.layout.root()).len(), 2);
    let own = next.stage_empty().unwrap();
    let mut left = staged_in(f.layout.root());
    left.sort();
    assert_eq!(left, [kept, own]);
    assert!(!lock.exists());
    // What was given up goes when its process ends in order.
    drop((living, next));
    assert_eq!(std::fs::read_dir(f.layout.root().join(STAGING)).unwrap().count(), 0);
}

/// Who only reads makes no directory, and the first write makes it once.
#[test]
fn only_a_write_makes_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("db");
    let open = || Layout::open(&root, 7, Timestamp(0), Box::new(RealDisk)).unwrap();
    let layout = open();
    let none = layout.explain(io::ErrorKind::NotFound.into());
    assert_eq!(none.kind(), io::ErrorKind::NotFound);
    assert!(none.to_string().contains("there is no directory") && !root.exists());
    layout.write(&root.join("log/x"), &Body::from(vec![1]), Publish::Replace).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    assert!(layout.write(&root.join("log/y"), &Body::from(vec![1]), Publish::Replace).is_err());
    assert!(!root.exists(), "a root that has gone is never made anew");
    assert!(Layout::open(&root.join("deeper"), 7, Timestamp(0), Box::new(RealDisk)).is_err());
}

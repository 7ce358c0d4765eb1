//! The few calls whose order makes a write durable, as a seam: a test records them and lets them fail.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// What a write asks of the file system once its bytes are staged.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Makes the file's bytes durable.
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives a staged file its name, replacing what was there.
    fn rename(&self, staged: &Path, name: &Path) -> io::Result<()>;

    /// Gives a staged file its name if there is none of that name.
    fn link(&self, staged: &Path, name: &Path) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn sync_file(&self, file: &File, _path: &Path) -> io::Result<()> {
        // The length is part of what fdatasync writes; only times are left out.
        file.sync_data()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn rename(&self, staged: &Path, name: &Path) -> io::Result<()> {
        std::fs::rename(staged, name)
    }

    fn link(&self, staged: &Path, name: &Path) -> io::Result<()> {
        std::fs::hard_link(staged, name)
    }
}

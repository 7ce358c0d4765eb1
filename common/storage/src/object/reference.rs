//! Copies by reference: an object of one bucket becomes one of another without its bytes coming through this process.
//!
//! ```text
//!   file     a hard link ─▶ rename ─▶ fsync of the folder      one file system
//!   cloud    the store's own copy request                       one bucket, reached in the same way
//!   memory   the same bytes under another name                  one process
//! ```
//! Only a bucket knows whether another one is near enough, and decorators hide what lies beneath. So each bucket says
//! where it lies by an [`Origin`], a value that only its own kind understands, and the target is handed that.
//!
//! Objects are never changed in place: writing one again replaces its name, deleting it takes one name away. So two
//! names of one file, or two keys of one body, never notice each other.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Where a bucket lies, as its own kind knows it.
#[derive(Clone, Default)]
pub struct Origin(Option<Arc<dyn Any + Send + Sync>>);

impl Origin {
    /// A place from which nothing can be had by reference.
    #[must_use]
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// What a bucket of the same kind finds again by [`Origin::of`].
    #[must_use]
    pub fn new<T: Any + Send + Sync>(place: T) -> Self {
        Self(Some(Arc::new(place)))
    }

    /// The place, where it is of this kind.
    #[must_use]
    pub fn of<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Origin {
    /// A place may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Origin(..)" } else { "Origin(nowhere)" })
    }
}

/// What came of [`super::Bucket::copy_from`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The object is there, durably, and none of its bytes were read here.
    ByReference,
    /// This store cannot take it from there in that way, and nothing was asked of it: read it and write it.
    Cannot,
}

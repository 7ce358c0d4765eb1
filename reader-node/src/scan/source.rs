//! What a scan merges: a generation's rows or a run's blocks, each handing out its next piece when it is asked.

use std::sync::Arc;

use isle_storage::merge::{Direction, Feed};

use super::window::RunSource;
use crate::memory::MemorySource;
use crate::tables::{FetchError, Reads, RunTables};
use isle_storage::range::KeyRange;

/// One source of a scan.
#[derive(Debug)]
pub(super) enum Source {
    Memory(MemorySource),
    Run(Box<RunSource>),
}

impl Source {
    /// The run as a source; `None` where no table of it reaches into the range.
    pub(super) fn run(
        reads: &Arc<Reads>,
        run: &RunTables,
        range: &KeyRange,
        direction: Direction,
        read_ahead: u64,
    ) -> Option<Self> {
        RunSource::new(reads, run, range, direction, read_ahead).map(|s| Self::Run(Box::new(s)))
    }

    /// The next rows in the scan's direction. `rows_wanted` is all the scan may still need.
    pub(super) async fn next_feed(&mut self, rows_wanted: usize) -> Result<Feed, FetchError> {
        match self {
            Self::Memory(memory) => Ok(memory.next_feed()),
            Self::Run(run) => run.next_feed(rows_wanted).await,
        }
    }

    /// The next rows if nothing has to be waited for.
    pub(super) fn feed_at_hand(&mut self) -> Option<Feed> {
        match self {
            Self::Memory(memory) => Some(memory.next_feed()),
            Self::Run(run) => run.feed_at_hand(),
        }
    }
}

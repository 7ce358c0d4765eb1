//! Parameters that every read takes.

use isle_service::ApiError;
use isle_service::wire::{self, Query};
use isle_storage::ids::{Epoch, Position, SeqNo};

use crate::options::{MinSeq, ReadOptions};

/// Their names.
pub(super) const READ: [&str; 3] = ["min_seq", "wait", "snapshot"];

/// What they say.
pub(super) fn read_options(query: &Query) -> Result<ReadOptions, ApiError> {
    Ok(ReadOptions {
        min_seq: query.min_seq()?.map(min_seq),
        wait: query.duration("wait")?,
        snapshot: query.text("snapshot")?.map(str::to_owned),
    })
}

/// The engine's form of what travelled.
pub(super) fn min_seq(wire: wire::MinSeq) -> MinSeq {
    match wire {
        wire::MinSeq::Seq(seq) => MinSeq::Seq(SeqNo(seq)),
        wire::MinSeq::Position(p) => MinSeq::Position(Position { epoch: Epoch(p.epoch), seq: SeqNo(p.seq) }),
    }
}

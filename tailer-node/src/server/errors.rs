//! Engine errors as answers: one exhaustive match.

use std::time::Duration;

use isle_service::{ApiError, ErrorCode};
use isle_storage::coordination::CoordinationError;

use crate::error::TailError;

impl From<TailError> for ApiError {
    fn from(error: TailError) -> Self {
        let message = error.to_string();
        let of = |code| Self::new(code, message.clone());
        match &error {
            TailError::NotReady(_) => of(ErrorCode::NotReady).retry_after(Duration::from_secs(1)),
            TailError::CursorExpired { earliest, .. } => {
                of(ErrorCode::CursorExpired).field("earliest", earliest.to_string())
            }
            TailError::WrongCursor { lineage, .. } => {
                of(ErrorCode::InvalidRequest).field("lineage", lineage.to_string())
            }
            TailError::Gone(_) => of(ErrorCode::ViewExpired),
            TailError::Damaged(_) => of(ErrorCode::Damaged),
            TailError::Store(_) => of(ErrorCode::StoreUnavailable),
            TailError::Coordination(CoordinationError::Lost(_)) => of(ErrorCode::CoordinationLost),
            TailError::Coordination(CoordinationError::Regressed(_)) => of(ErrorCode::CoordinationRegressed),
            TailError::Coordination(CoordinationError::WrongDatabase(_)) => of(ErrorCode::WrongDatabase),
            TailError::Coordination(CoordinationError::Unavailable(_)) => {
                of(ErrorCode::CoordinationUnavailable)
            }
            TailError::Coordination(CoordinationError::Full(_)) => of(ErrorCode::CoordinationFull),
            TailError::Coordination(_) => of(ErrorCode::NotReady),
            TailError::InvalidGroup(_) => of(ErrorCode::InvalidRequest),
            TailError::UnknownGroup(name) => of(ErrorCode::UnknownGroup).field("group", name.as_str()),
            TailError::TooManyGroups(most) => of(ErrorCode::TooManyGroups).field("limit", *most),
            TailError::Overloaded(_) => of(ErrorCode::Overloaded).retry_after(Duration::from_secs(5)),
            TailError::Busy(_) => of(ErrorCode::Overloaded).retry_after(Duration::from_secs(5)),
            TailError::UnknownSnapshot(name) => of(ErrorCode::UnknownSnapshot).field("name", name.clone()),
            TailError::HoldEnded(_) => of(ErrorCode::ViewExpired),
            TailError::Closing => of(ErrorCode::ShuttingDown),
        }
    }
}

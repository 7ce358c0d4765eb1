//! What an answer, or its absence, means.

use isle_history::WriteOutcome;
use isle_service::ErrorCode;
use isle_service::client::{CallError, RemoteError};

/// How a write ended that was not acknowledged.
pub(super) fn outcome(error: &CallError) -> WriteOutcome {
    match error {
        CallError::Client(e) if e.surely_not_sent() => {
            WriteOutcome::Refused { code: format!("not sent: {e}") }
        }
        CallError::Remote(e) if is_refusal(e) => WriteOutcome::Refused { code: code(error) },
        _ => WriteOutcome::Unknown { why: error.to_string() },
    }
}

/// 4xx, 429 and 503: certainly not applied.
fn is_refusal(e: &RemoteError) -> bool {
    let status = e.status.as_u16();
    e.code != Some(ErrorCode::OutcomeUnknown) && ((400..500).contains(&status) || status == 503)
}

/// How an ingest ended that was not acknowledged as a whole: its lines before `committed_lines` are committed.
pub(super) fn ingest_outcome(error: &CallError) -> WriteOutcome {
    let CallError::Remote(e) = error else {
        return match outcome(error) {
            refused @ WriteOutcome::Refused { .. } => refused,
            _ => WriteOutcome::Streamed { lines: 0, last_seq: 0, rest_unknown: true },
        };
    };
    let number = |name: &str| e.fields.get(name).and_then(serde_json::Value::as_u64);
    match number("committed_lines") {
        // Refused before its first line was looked at.
        None if is_refusal(e) => WriteOutcome::Refused { code: code(error) },
        lines => WriteOutcome::Streamed {
            lines: lines.unwrap_or(0),
            last_seq: number("last_seq").unwrap_or(0),
            // Only a bad line says that nothing after it was looked at, and none of ours is bad.
            rest_unknown: true,
        },
    }
}

/// The code of an error, or the reason why it has none.
pub(super) fn code(error: &CallError) -> String {
    match error {
        CallError::Remote(e) => {
            let told = e.fields.get("code").and_then(serde_json::Value::as_str);
            told.map_or_else(|| format!("status {}", e.status), str::to_owned)
        }
        other => other.to_string(),
    }
}

//! `GET` and `PUT /v1/mode`: the compaction mode, what it means, and its change.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::Uri;
use isle_service::slot::Slot;
use isle_service::wire::time::rfc3339;
use isle_service::wire::{Query, duration, json_body};
use isle_service::{ApiError, ErrorCode};
use isle_storage::manifest::CompactionMode;
use serde::{Deserialize, Serialize};

use crate::compactor::Compactor;
use crate::error::JobError;
use crate::mode::Forecast;
use crate::retain::Expired;

/// The modes by name.
const MODES: [&str; 3] = ["merge", "fifo", "time_window"];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModeJson {
    mode: String,
    policy: Option<String>,
    retention: Option<String>,
    retention_count: Option<u64>,
    segment: Option<String>,
}

/// A mode and what it means for the database as it is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ModeAnswer {
    mode: &'static str,
    policy: Option<&'static str>,
    retention: Option<String>,
    retention_count: Option<u64>,
    segment: Option<String>,
    /// Whether this request changed the mode.
    changed: bool,
    /// Tables whose retention has ended under this mode: they go with the next passes.
    over: Expired,
    /// Everything there is.
    all: Expired,
    /// When the next table will be over.
    next: Option<String>,
    /// The same, in sentences.
    statement: Vec<String>,
}

pub(super) async fn show(
    State(slot): State<Slot<Compactor>>,
    uri: Uri,
) -> Result<Json<ModeAnswer>, ApiError> {
    Query::parse(&uri, &[])?;
    let compactor = slot.get()?;
    let manifest = compactor.database().load().await.map_err(|e| failed(JobError::from(e)))?.manifest;
    Ok(Json(answer(&compactor.foresee(&manifest, &manifest.compaction), false)))
}

pub(super) async fn set(
    State(slot): State<Slot<Compactor>>,
    uri: Uri,
    body: Body,
) -> Result<Json<ModeAnswer>, ApiError> {
    let query = Query::parse(&uri, &["dry_run"])?;
    let compactor = slot.get()?;
    let wanted: ModeJson = json_body(body).await?;
    let wanted = wanted.mode().map_err(ApiError::invalid)?;
    if query.bool("dry_run")? {
        wanted.validate().map_err(ApiError::invalid)?;
        let manifest = compactor.database().load().await.map_err(|e| failed(JobError::from(e)))?.manifest;
        return Ok(Json(answer(&compactor.foresee(&manifest, &wanted), false)));
    }
    let done = compactor.set_mode(&wanted).await.map_err(failed)?;
    Ok(Json(answer(&done.forecast, done.changed)))
}

impl ModeJson {
    fn mode(&self) -> Result<CompactionMode, String> {
        let micros = |name: &str, text: &Option<String>| {
            let text =
                text.as_deref().ok_or_else(|| format!("mode {} needs {name:?} (--{name} 7d)", self.mode))?;
            let duration = duration::parse(text).map_err(|why| format!("{name}: {why}"))?;
            i64::try_from(duration.as_micros()).map_err(|_| format!("{name}: {text} is too long"))
        };
        let refuse = |name: &str, given: bool| match given {
            true => Err(format!("mode {} takes no {name:?}", self.mode)),
            false => Ok(()),
        };
        if !MODES.contains(&self.mode.as_str()) {
            return Err(no_mode(&self.mode));
        }
        let retention_count = self.retention_count.unwrap_or_default();
        refuse("policy", self.policy.is_some() && self.mode != "merge")?;
        refuse("segment", self.segment.is_some() && self.mode != "time_window")?;
        let ageless = self.mode == "merge";
        refuse("retention", ageless && (self.retention.is_some() || self.retention_count.is_some()))?;
        match (self.mode.as_str(), self.policy.as_deref()) {
            ("merge", None | Some("tiered")) => Ok(CompactionMode::Merge),
            ("merge", Some("leveled")) => Ok(CompactionMode::Leveled),
            ("merge", Some(other)) => Err(format!("{other:?} is no policy: tiered or leveled")),
            ("fifo", _) => Ok(CompactionMode::Fifo {
                retention_us: micros("retention", &self.retention)?,
                retention_count,
            }),
            ("time_window", _) => Ok(CompactionMode::TimeWindow {
                segment_us: micros("segment", &self.segment)?,
                retention_us: micros("retention", &self.retention)?,
                retention_count,
            }),
            (other, _) => Err(no_mode(other)),
        }
    }
}

/// Names a mode that does not exist, and the one that was probably meant.
fn no_mode(name: &str) -> String {
    let letters = |text: &str| text.to_lowercase().replace(|c: char| !c.is_ascii_alphabetic(), "");
    let meant = MODES.iter().find(|mode| letters(mode) == letters(name));
    let hint = match (meant, name) {
        (Some(mode), _) => format!("; did you mean {mode}?"),
        (None, "tiered" | "leveled") => format!("; did you mean merge with the policy {name}?"),
        (None, _) => String::new(),
    };
    format!("{name:?} is no mode (merge, fifo or time_window){hint}")
}

/// Reads a mode as `PUT /v1/mode` takes it.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn read(wanted: serde_json::Value) -> Result<CompactionMode, String> {
    let wanted: ModeJson = serde_json::from_value(wanted).map_err(|e| e.to_string())?;
    let mode = wanted.mode()?;
    mode.validate().map(|()| mode)
}

/// A mode as `/v1/mode` answers it.
#[must_use]
pub fn shown(forecast: &Forecast, changed: bool) -> serde_json::Value {
    serde_json::to_value(answer(forecast, changed)).unwrap_or_default()
}

fn answer(forecast: &Forecast, changed: bool) -> ModeAnswer {
    let text = |us: i64| duration::format(Duration::from_micros(us.unsigned_abs()));
    let (policy, count, segment) = match forecast.mode {
        CompactionMode::Merge => (Some("tiered"), None, None),
        CompactionMode::Leveled => (Some("leveled"), None, None),
        CompactionMode::Fifo { retention_count, .. } => (None, Some(retention_count), None),
        CompactionMode::TimeWindow { segment_us, retention_count, .. } => {
            (None, Some(retention_count), Some(text(segment_us)))
        }
    };
    ModeAnswer {
        mode: forecast.mode.name(),
        policy,
        retention: forecast.mode.retention_us().map(text),
        retention_count: count,
        segment,
        changed,
        over: forecast.over,
        all: forecast.all,
        next: forecast.next.map(|at| rfc3339(at.micros())),
        statement: statement(forecast),
    }
}

/// What will happen, for whoever decides.
fn statement(f: &Forecast) -> Vec<String> {
    let text = |us: i64| duration::format(Duration::from_micros(us.unsigned_abs()));
    let all = format!(
        "{} tables with {} rows, {} bytes, in {} runs",
        f.all.tables, f.all.rows, f.all.bytes, f.runs
    );
    let mut lines = vec![match f.mode {
        CompactionMode::Merge => {
            format!("merge, tiered: {all}; runs of similar size merge; nothing goes by age.")
        }
        CompactionMode::Leveled => {
            format!(
                "merge, leveled: {all}; each level is many times larger than the one above; nothing goes by age."
            )
        }
        CompactionMode::Fifo { retention_us, retention_count } => format!(
            "fifo: {all}; a table goes once its newest row is older than {}; the newest {retention_count} tables stay.",
            text(retention_us)
        ),
        CompactionMode::TimeWindow { segment_us, retention_us, retention_count } => format!(
            "time_window: {all}; tables merge only within {}; a window goes {} after its end; the newest {} windows stay.",
            text(segment_us),
            text(retention_us),
            (retention_count / 10).max(1)
        ),
    }];
    if f.mode.retention_us().is_none() {
        return lines;
    }
    lines.push(match f.over {
        Expired { tables: 0, .. } => "Nothing is over yet.".to_owned(),
        Expired { tables, rows, bytes } => {
            format!("{tables} tables with {rows} rows, {bytes} bytes, are over: they go with the next pass.")
        }
    });
    lines.extend(f.next.map(|at| format!("The next table is over at {}.", rfc3339(at.micros()))));
    lines.extend(
        f.held_by
            .as_ref()
            .map(|s| format!("Snapshot {s:?} sees the oldest rows: nothing goes before it ends.")),
    );
    lines
}

fn failed(error: JobError) -> ApiError {
    let message = error.to_string();
    match error {
        JobError::Refused(_) => ApiError::invalid(message),
        JobError::Unknown(_) => ApiError::new(ErrorCode::OutcomeUnknown, message),
        JobError::Store(_) | JobError::Coordination(_) => ApiError::new(ErrorCode::StoreUnavailable, message),
        JobError::ClaimedElsewhere(_) | JobError::Stale(_) | JobError::ClaimLost(_) => {
            ApiError::new(ErrorCode::NotReady, format!("{message}; nothing was changed, try again"))
        }
        JobError::Stopped(_) => ApiError::new(ErrorCode::ShuttingDown, message),
        JobError::Damaged { .. } | JobError::UnreadableValue { .. } => {
            ApiError::new(ErrorCode::Damaged, message)
        }
        JobError::Internal(_) => ApiError::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<CompactionMode, String> {
        let mode = serde_json::from_str::<ModeJson>(json).map_err(|e| e.to_string())?.mode()?;
        mode.validate().map(|()| mode)
    }

    #[test]
    fn modes_are_read_with_people_s_durations() {
        let week = 7 * 86_400_000_000;
        assert_eq!(read(r#"{"mode":"merge"}"#), Ok(CompactionMode::Merge));
        assert_eq!(read(r#"{"mode":"merge","policy":"leveled"}"#), Ok(CompactionMode::Leveled));
        let fifo = CompactionMode::Fifo { retention_us: week, retention_count: 3 };
        assert_eq!(read(r#"{"mode":"fifo","retention":"7d","retention_count":3}"#), Ok(fifo));
        let windows =
            CompactionMode::TimeWindow { segment_us: 3_600_000_000, retention_us: week, retention_count: 0 };
        assert_eq!(read(r#"{"mode":"time_window","retention":"7d","segment":"1h"}"#), Ok(windows));
    }

    #[test]
    fn modes_that_contradict_themselves_are_refused_with_the_reason() {
        for (json, why) in [
            (r#"{"mode":"fifo"}"#, "needs \"retention\""),
            (r#"{"mode":"fifo","retention":"0s"}"#, "deletes everything"),
            (r#"{"mode":"fifo","retention":"-1d"}"#, "is not a duration"),
            (r#"{"mode":"fifo","retention":"1d","segment":"1h"}"#, "takes no \"segment\""),
            (r#"{"mode":"fifo","retention":"1d","policy":"leveled"}"#, "takes no \"policy\""),
            (r#"{"mode":"merge","retention":"1d"}"#, "takes no \"retention\""),
            (r#"{"mode":"merge","policy":"flat"}"#, "is no policy"),
            (r#"{"mode":"time_window","retention":"1d","segment":"2d"}"#, "longer than the retention"),
            (r#"{"mode":"time_window","retention":"1d","segment":"0s"}"#, "holds nothing"),
            (r#"{"mode":"ring"}"#, "is no mode"),
            (r#"{"mode":"time-window","segment":"1h"}"#, "did you mean time_window?"),
            (r#"{"mode":"leveled"}"#, "merge with the policy leveled"),
            (r#"{"mode":"time_window","retention":"1d"}"#, "--segment"),
            (
                r#"{"mode":"time_window","retention":"12h","segment":"1d"}"#,
                "a window of 1d is longer than the retention, 12h",
            ),
            (r#"{"mode":"fifo","retention":"1d","keep":3}"#, "unknown field"),
        ] {
            let said = read(json).unwrap_err();
            assert!(said.contains(why), "{json}: {said}");
        }
    }
}

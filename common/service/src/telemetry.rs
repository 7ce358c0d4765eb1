//! Logs: to stderr, as text or JSON, so that stdout stays for results.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings, nearest};

/// The levels there are.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether `level` is a level, or directives of which every one names a level. A bare word that is no level would
/// otherwise be taken for the name of a module, and a misspelt level would silence the whole log.
pub fn check_level(level: &str) -> Result<(), String> {
    for directive in level.split(',') {
        let (target, word) = directive.split_once('=').unwrap_or(("", directive));
        if !LEVELS.contains(&word.to_lowercase().as_str()) {
            let hint = match nearest(&word.to_lowercase(), LEVELS) {
                Some(near) if target.is_empty() => format!("did you mean {near}?"),
                Some(near) => format!("did you mean {target}={near}?"),
                None => format!("known are {}", LEVELS.join(", ")),
            };
            return Err(format!("{directive:?} is not a log level; {hint}"));
        }
    }
    EnvFilter::try_new(level).map(|_| ()).map_err(|e| format!("{level:?} is not a log level: {e}"))
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn init(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|e| format!("{:?} is not a log level: {e}", settings.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_started = match settings.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for good in ["info", "WARN", "off", "info,writer_node=debug", "warn,isle_storage::object=trace"] {
            assert!(check_level(good).is_ok(), "{good}");
        }
        for bad in ["", "wat", "inof", "writer_node", "info,", "info,writer_node=loud", "info=1=2"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
        assert!(check_level("inof").unwrap_err().ends_with("did you mean info?"));
    }
}

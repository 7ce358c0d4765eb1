//! Query parameters of mutations.

use std::time::Duration;

use http::Uri;
use isle_service::ApiError;
use isle_service::wire::Query;

use crate::intake::{Ack, Options, Patience};
use crate::settings::WriterSettings;

/// The options that `ack=` asks for.
pub(super) fn options(query: &Query, settings: &WriterSettings) -> Result<Options, ApiError> {
    let ack = match query.text("ack")? {
        None | Some("bucket") => Ack::Bucket,
        Some("disk") => Ack::Disk,
        Some("memory") => Ack::Memory,
        Some(other) => {
            return Err(ApiError::invalid(format!("ack={other}: it is one of bucket, disk and memory")));
        }
    };
    if ack == Ack::Disk {
        return Err(ApiError::unsupported("ack=disk is not available on this node"));
    }
    let patience = Patience::AtMost(Duration::from_millis(settings.admission_wait_ms));
    Ok(Options { ack, patience, ack_timeout: None })
}

/// The parameters of `uri`, all of them known, and the options among them.
pub(super) fn parse(
    uri: &Uri,
    allowed: &[&'static str],
    settings: &WriterSettings,
) -> Result<(Query, Options), ApiError> {
    let query = Query::parse(uri, allowed)?;
    let options = options(&query, settings)?;
    Ok((query, options))
}

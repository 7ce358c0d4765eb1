//! The settings in force, as a file that would set them, for `--print-config`.

use serde::Serialize;

use super::error::ConfigError;

/// Stands where a secret would.
const HIDDEN: &str = "(hidden)";

/// Appends `[name]` and every setting of `section`; what is named like a secret, and what a URL carries as one, is hidden.
pub fn print(out: &mut String, name: &str, section: &impl Serialize) -> Result<(), ConfigError> {
    let mut value = toml::Value::try_from(section)
        .map_err(|e| ConfigError::at(name, format!("cannot be shown as TOML: {e}")))?;
    hide(&mut value);
    let table = toml::Table::from_iter([(name.to_owned(), value)]);
    let text = toml::to_string(&table).map_err(|e| ConfigError::at(name, format!("cannot be shown: {e}")))?;
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&text);
    Ok(())
}

fn hide(value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                // A switch is no secret, whatever it is called.
                match value {
                    toml::Value::Boolean(_) => {}
                    secret if is_secret(name) => *secret = HIDDEN.into(),
                    other => hide(other),
                }
            }
        }
        toml::Value::Array(items) => items.iter_mut().for_each(hide),
        toml::Value::String(text) if text.contains("://") => *text = hide_in_url(text),
        _ => {}
    }
}

/// Whether a setting of this name, or a URL parameter, holds a secret itself rather than the name of a file that does.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let names = ["password", "passwd", "secret", "token", "credential", "access_key", "account_key", "sas"];
    names.iter().any(|n| name.contains(n)) && !name.ends_with("_file")
}

/// A URL without its password and without the values of secret parameters.
#[must_use]
pub(super) fn hide_in_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (body, query) = rest.split_once('?').map_or((rest, None), |(b, q)| (b, Some(q)));
    let (authority, path) = body.find('/').map_or((body, ""), |at| body.split_at(at));
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:{HIDDEN}"));
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    let query = query.map(|q| {
        let pairs = q.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{authority}{path}{}", query.unwrap_or_default())
}

//! `isle tail`: follows the log, resuming by itself where a tailer goes away.

use std::time::Duration;

use http::Method;
use isle_service::client::CallError;
use isle_service::wire::escape_key;
use serde_json::Value;

use crate::args::TailArgs;
use crate::nodes::{Api, Request, To, surely_not_applied};
use crate::output::{self, Failure};

/// A stream that says nothing for this long (heartbeats included) is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// Pause before another tailer is tried.
const PAUSE: Duration = Duration::from_millis(500);

/// How often in a row no tailer may be reached before the command gives up.
const ATTEMPTS: u32 = 120;

pub(crate) async fn tail(args: TailArgs) -> Result<(), Failure> {
    let api = Api::new(&args.nodes);
    let bases = api.bases(To::Tailer)?;
    let mut follow = Follow { from: args.from.clone(), left: args.limit.unwrap_or(u64::MAX), args };
    let mut failures = 0;
    for base in bases.iter().cycle() {
        let error = match follow.once(&api, base).await {
            Ok(Ended::Enough) => return Ok(()),
            Ok(Ended::Broken(advanced, why)) => {
                if advanced {
                    failures = 0;
                }
                why
            }
            Err(Stop::Refused(failure)) => return Err(failure),
            Err(Stop::Away(why)) => why,
        };
        failures += 1;
        if failures >= ATTEMPTS {
            return Err(Failure::new(format!("{error}; the position is {}", follow.from)));
        }
        if failures > 1 {
            output::note(&format!("{error}; trying again from where it stopped"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// How a stream ended.
enum Ended {
    /// What was asked for has been printed.
    Enough,
    /// It broke off; whether it had advanced.
    Broken(bool, String),
}

enum Stop {
    Refused(Failure),
    Away(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

struct Follow {
    args: TailArgs,
    from: String,
    left: u64,
}

impl Follow {
    async fn once(&mut self, api: &Api, base: &isle_service::client::BaseUrl) -> Result<Ended, Stop> {
        let mut target = format!("/v1/tail?format=ndjson&from={}", escape_key(self.from.as_bytes()));
        if let Some(prefix) = &self.args.prefix {
            target.push_str(&format!("&prefix={}", escape_key(prefix.as_bytes())));
        }
        let answer = match api.send(base, &Request::new(Method::GET, target)).await {
            Ok(answer) => answer,
            Err(e @ CallError::Remote(_)) if !surely_not_applied(&e) => return Err(Stop::Refused(e.into())),
            Err(e) => return Err(Stop::Away(e.to_string())),
        };
        let mut lines = answer.lines(Some(SILENCE));
        let mut advanced = false;
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(Ended::Broken(advanced, "the stream ended".to_owned())),
                Err(e) => return Ok(Ended::Broken(advanced, e.to_string())),
            };
            let json: Value = serde_json::from_slice(&line.bytes).map_err(|e| Stop::Refused(e.into()))?;
            if let Some(error) = json.get("error") {
                let text = format!("{}: {}", error["code"], error["message"]);
                return match error["retryable"].as_bool() {
                    Some(true) => Ok(Ended::Broken(advanced, text)),
                    _ => Err(Stop::Refused(Failure::new(text))),
                };
            }
            if let Some(next) = json["next"].as_str() {
                advanced = true;
                next.clone_into(&mut self.from);
                if json["closing"] == true {
                    return Ok(Ended::Broken(advanced, "the tailer is stopping".to_owned()));
                }
                if self.args.until_caught_up && json["caught_up"] == true {
                    return Ok(Ended::Enough);
                }
                continue;
            }
            output::write(&[&line.bytes[..], b"\n"].concat())?;
            advanced = true;
            json["cursor"].as_str().unwrap_or_default().clone_into(&mut self.from);
            self.left -= 1;
            if self.left == 0 {
                return Ok(Ended::Enough);
            }
        }
    }
}

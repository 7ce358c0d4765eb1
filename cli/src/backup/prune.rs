//! `isle backup prune`: old backups taken away. Like every command that deletes, it only says what it would do without
//! `--yes`.

use bytesize::ByteSize;
use isle_service::wire::duration;
use isle_service::wire::time::rfc3339;
use isle_storage::transfer::{self, BackupRecord, Keep, PrunePlan};
use serde_json::json;

use super::{Shown, failure};
use crate::args::PruneArgs;
use crate::output::{self, Failure};

pub(super) async fn prune(args: &PruneArgs) -> Result<(), Failure> {
    let keep = keep(args)?;
    let place = args.at.place()?;
    let store = place.other_store(&args.at.from)?;
    if !args.yes {
        let plan = transfer::plan_prune(&store, place.env(), keep).await.map_err(failure)?;
        say(args, &plan, false)?;
        if plan.is_empty() {
            return Ok(());
        }
        return Err(Failure::usage("nothing was deleted; repeat with --yes to delete this"));
    }
    let node = place.environment.node("prune", "");
    let shown = Shown::default();
    let done = transfer::prune(&store, place.env(), &node.node, keep, &|s| shown.show(s)).await;
    say(args, &done.map_err(failure)?, true)
}

fn keep(args: &PruneArgs) -> Result<Keep, Failure> {
    match (args.keep, &args.older_than) {
        (Some(n), _) => Ok(Keep::Newest(n as usize)),
        (None, Some(age)) => duration::parse(age).map(Keep::Younger).map_err(Failure::usage),
        (None, None) => Err(Failure::usage("which: give --keep N or --older-than AGE")),
    }
}

fn say(args: &PruneArgs, plan: &PrunePlan, done: bool) -> Result<(), Failure> {
    let (objects, bytes) = (plan.objects.len(), plan.bytes());
    let numbers = |of: &[BackupRecord]| of.iter().map(|b| b.number).collect::<Vec<_>>();
    if args.at.json {
        let json = json!({
            "deleted": done, "removed": numbers(&plan.removed), "kept": numbers(&plan.kept),
            "objects": objects, "bytes": bytes,
        });
        return output::line(&json.to_string());
    }
    let verb = if done { "deleted" } else { "would delete" };
    for b in &plan.removed {
        let (number, made) = (b.number, rfc3339(b.created.0));
        output::line(&format!("{verb} backup {number} of {made}, up to sequence number {}", b.last_seq))?;
    }
    let kept = numbers(&plan.kept).iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let bytes = ByteSize(bytes);
    output::line(&format!("{verb} {objects} objects ({bytes}) that no other backup needs; kept: {kept}"))
}

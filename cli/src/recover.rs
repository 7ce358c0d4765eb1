//! `isle recover`: the head rebuilt from the bucket alone.
//!
//! Looks around, decides, shows the plan, and carries it out; what it is doing goes to standard error, the plan and what
//! came of it to standard output. `--dry-run` stops before the first write.

use isle_service::wire::duration;
use isle_service::wire::time::rfc3339;
use isle_storage::coordination::recover::{self, Consent, Findings, Fresh, Plan, RecoverError, Step};
use isle_storage::ids::{CommitId, Incarnation, Lineage};
use isle_storage::manifest::Manifest;
use serde_json::{Value, json};

use crate::args::RecoverArgs;
use crate::output::{self, Failure};
use crate::place::{Failed, Place};

/// How many adopted segments the text names.
const MOST_NAMED: usize = 5;

pub(crate) async fn recover(args: RecoverArgs) -> Result<(), Failure> {
    if !args.dry_run && !args.old_coordination_is_stopped {
        return Err(Failure::usage(
            "recover starts a new history and cannot fence a coordination service that still lives elsewhere: what is \
             acknowledged there afterwards would be lost. Stop every role and that service, then say so with \
             --old-coordination-is-stopped. (--dry-run shows what would be done, and changes nothing)",
        ));
    }
    let place = args.at.place()?;
    let found = look_around(&place).await?;
    let env = place.env();
    let fresh = Fresh {
        lineage: Lineage(env.entropy.next_u128()),
        incarnation: Incarnation(env.entropy.next_u64()),
        commit: CommitId(env.entropy.next_u64()),
    };
    let consent = Consent { loss: args.accept_loss, sound: args.even_if_sound };
    let plan = match recover::plan(&found, consent, fresh) {
        Err(RecoverError::Sound(why)) if args.dry_run => return nothing_to_do(&why, args.at.reach.json),
        planned => planned?,
    };
    if !args.at.reach.json {
        output::write(text(&found, &plan, &place.store.url).as_bytes())?;
    }
    if !args.dry_run {
        carry_out(&place, &plan).await?;
    }
    match (args.at.reach.json, args.dry_run) {
        (true, dry) => output::line(&json_of(&found, &plan, dry).to_string()),
        (false, true) => output::line("Nothing was changed."),
        (false, false) => output::line(
            "Done. Start the roles again; those that still run go over by themselves. Tail cursors and page tokens of \
             the old lineage are refused: consumers go on with seq:<n>.",
        ),
    }
}

/// A dry run over a sound database: that is its answer, and no failure.
fn nothing_to_do(why: &str, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::line(&json!({ "dry_run": true, "sound": true, "why": why }).to_string());
    }
    output::line(&format!("There is nothing to recover: {why}.\nNothing was changed."))
}

/// Looks around, waiting a while for a store or a service that cannot be reached.
async fn look_around(place: &Place) -> Result<Findings, Failure> {
    place
        .patiently(async || {
            let (bucket, coordination) = place.open().await?;
            Ok(recover::survey(&bucket, &coordination, place.env(), &place.store.database, &show).await?)
        })
        .await
}

async fn carry_out(place: &Place, plan: &Plan) -> Result<(), Failure> {
    let (bucket, coordination) = place.open().await.map_err(Failed::into_failure)?;
    recover::carry_out(&bucket, &coordination, place.env(), plan, &show).await?;
    Ok(())
}

/// One line of progress.
fn show(step: Step) {
    output::note(&match step {
        Step::Listed { folder, objects } => format!("{folder}/: {objects} objects"),
        Step::Rejected(rejected) => format!("passed over {rejected}"),
        Step::Base(path) => format!("building on {path}"),
        Step::Segments { read, of } => format!("segments beyond it read and verified: {read} of {of}"),
        Step::Wrote(path) => format!("wrote {path}"),
        Step::WaitingFor(node) => format!("waiting: {node} has the writer's role, until its lease ends"),
    });
}

fn text(found: &Findings, plan: &Plan, url: &str) -> String {
    let m = &plan.manifest;
    let mut lines = vec![format!("Database {:?} ({}) in {url}", found.identity.name, m.database)];
    for rejected in &plan.rejected {
        lines.push(format!("  passed over  {rejected}"));
    }
    lines.push(format!(
        "  built on     {} (version {}, up to sequence number {})",
        plan.base, plan.base_version, plan.base_seq
    ));
    lines.push(match (plan.adopted.first(), plan.adopted.last()) {
        (Some(first), Some(last)) => format!(
            "  adopted      {} segments, sequence numbers {} to {}: {}",
            plan.adopted.len(),
            first.id.first_seq,
            last.last_seq,
            named(plan)
        ),
        _ => "  adopted      no segment: the checkpoint holds everything".to_owned(),
    });
    if let Some(gap) = &plan.gap {
        lines.push(format!("  GIVEN UP     everything after sequence number {}: {gap}", m.last_seq));
    }
    lines.push(match &plan.remains.head {
        Some(h) => format!(
            "  replaces     the head at version {}, epoch {}, sequence number {}",
            h.version, h.epoch, h.last_seq
        ),
        None => "  replaces     no head: there is none that can be read".to_owned(),
    });
    lines.push(format!(
        "  new head     version {}, epoch {}, sequence number {}, lineage {} (number {})",
        m.version, m.epoch, m.last_seq, m.lineage, plan.lineage_number
    ));
    let o = plan.orphans;
    lines.push(format!(
        "  left behind  {} log objects, {} tables, {} blob files ({} bytes), named by nothing: for the orphan sweep",
        o.log, o.tables, o.blobs, o.bytes
    ));
    lines.push(format!(
        "  as of version {}: snapshots, consumer groups, compaction mode, default ttl, pause (changes made since are not \
         in the bucket; a new mode, ttl or pause writes a checkpoint)",
        plan.base_version
    ));
    lines.push(format!("  so it has    {}", settings(m)));
    lines.join("\n") + "\n"
}

/// What the database will be set to, for whoever remembers something else.
fn settings(m: &Manifest) -> String {
    let ttl = m
        .default_ttl()
        .map_or_else(|| "no default ttl".to_owned(), |ttl| format!("ttl {}", duration::format(ttl)));
    let pause = match &m.pause {
        None => "no pause".to_owned(),
        Some(pause) => match pause.until {
            None => format!("paused by {}", pause.by),
            Some(until) => format!("paused by {} until {}", pause.by, rfc3339(until.micros())),
        },
    };
    let (snapshots, groups) = (m.snapshots.len(), m.groups.len());
    format!("mode {}, {ttl}, {pause}, {snapshots} snapshots, {groups} consumer groups", m.compaction.name())
}

/// The first adopted segments, and how many more.
fn named(plan: &Plan) -> String {
    let mut names: Vec<String> = plan.adopted.iter().take(MOST_NAMED).map(|e| e.path().to_string()).collect();
    if plan.adopted.len() > MOST_NAMED {
        names.push(format!("and {} more", plan.adopted.len() - MOST_NAMED));
    }
    names.join(", ")
}

fn json_of(found: &Findings, plan: &Plan, dry_run: bool) -> Value {
    let m = &plan.manifest;
    json!({
        "dry_run": dry_run,
        "database": m.database.to_string(),
        "name": found.identity.name,
        "rejected": plan.rejected.iter().map(|r| json!({"checkpoint": r.path, "why": r.why})).collect::<Vec<_>>(),
        "base": {"checkpoint": plan.base, "version": plan.base_version, "last_seq": plan.base_seq},
        "adopted": plan.adopted.iter().map(|e| {
            json!({"object": e.path().to_string(), "first_seq": e.id.first_seq, "last_seq": e.last_seq})
        }).collect::<Vec<_>>(),
        "lost": plan.gap.as_ref().map(|gap| json!({
            "first_seq": gap.first,
            "last_seq": gap.last,
            "why": gap.why,
            "unreachable": gap.beyond.iter().map(|id| id.path(isle_storage::names::LogKind::Segment).to_string()).collect::<Vec<_>>(),
        })),
        "replaced": plan.remains.head.as_ref().map(|h| {
            json!({"version": h.version, "epoch": h.epoch, "last_seq": h.last_seq, "lineage": h.lineage})
        }),
        "head": {
            "version": m.version, "epoch": m.epoch, "last_seq": m.last_seq,
            "lineage": m.lineage, "lineage_number": plan.lineage_number,
        },
        "settings": {
            "mode": m.compaction.name(),
            "ttl": m.default_ttl().map(duration::format),
            "paused_by": m.pause.as_ref().map(|p| &p.by),
            "paused_until": m.pause.as_ref().and_then(|p| p.until).map(|until| rfc3339(until.micros())),
            "snapshots": m.snapshots.keys().collect::<Vec<_>>(),
            "groups": m.groups.keys().collect::<Vec<_>>(),
        },
        "orphans": {
            "log": plan.orphans.log, "tables": plan.orphans.tables, "blobs": plan.orphans.blobs,
            "bytes": plan.orphans.bytes,
        },
    })
}

//! Leadership: one task that contests the writer's role, stands by, takes over, recovers, leads, and begins again.
//!
//! ```text
//!            ┌────────────── lost, with a new epoch ──────────────┐
//!            ▼                                                    │
//! starting ─▶ contest ─▶ won ─▶ take over ─▶ load the log ─▶ leading ─▶ draining ─▶ closed
//!            ▲      └─▶ held by another ─▶ standby ─┐        │
//!            └──────────────── vacancy ─────────────┘        └─▶ fenced (forms without leases: until restarted)
//! ```
//!
//! Nothing survives a lost leadership but caches of immutable objects: numbers, batches and generations are dropped,
//! and rebuilt from the manifest after the next claim. A passing failure anywhere here costs a pause, never the
//! process; a lasting one is shown as trouble.

pub(crate) mod limbo;
mod recovery;

use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::claim::{TakeoverError, take_over};
use isle_storage::coordination::{Backend, Claim, ClaimAttempt, CoordinationError, LeaderInfo, Loaded};
use isle_storage::database::Database;
use isle_storage::ids::{Incarnation, Timestamp};
use tracing::{info, warn};

use crate::Role;
use crate::engine::{Backoff, Engine};
use crate::generation::{GenerationRules, Generations};
use crate::intake::{Outcome, SealRules, Sequencer};
use crate::pipeline::{End, Leftovers, Pipeline, Term};
use crate::standing::Trouble;

/// A definite refusal (lost, regressed, wrong database) is asked about again at this pace: somebody may mend it.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// How long a writer that was told to stop at once spends on giving its lease back.
const GIVE_BACK_AT_MOST: Duration = Duration::from_secs(1);

/// How often a clock that lies behind is read again.
const CLOCK_PAUSE: Duration = Duration::from_millis(250);

/// Runs until the writer is closed.
pub(crate) async fn lead(engine: Arc<Engine>) {
    let mut backoff = engine.backoff();
    while !engine.drain.is_cancelled() {
        if round(&engine, &mut backoff).await.is_break() {
            break;
        }
    }
    // Those in doubt are told the truth if it can be had in time.
    tokio::select! {
        biased;
        () = engine.limbo.emptied() => {}
        () = engine.stop.cancelled() => {}
    }
    close(&engine);
}

/// The writer is done: whoever still waits is told so.
fn close(engine: &Engine) {
    engine.seat.lock().take();
    let why = "the writer stopped before it could read the truth";
    for d in engine.limbo.take() {
        d.completion.end(Outcome::Abandoned(why.to_owned()));
    }
    for admitted in engine.limbo.take_edits().into_iter().flat_map(|e| e.admitted) {
        admitted.unknown(why);
    }
    engine.stand(Role::Closed, Some("the writer is closed".to_owned()));
}

/// One attempt to lead, and what came of it.
async fn round(engine: &Arc<Engine>, backoff: &mut Backoff) -> std::ops::ControlFlow<()> {
    let claim = match contest(engine).await {
        Ok(Contest::Won(claim)) => claim,
        Ok(Contest::Held(leader)) => {
            *backoff = engine.backoff();
            engine.troubles.clear(Trouble::Leadership);
            stand_by(engine, leader).await;
            return std::ops::ControlFlow::Continue(());
        }
        Err(e) => return retry_later(engine, &e, backoff).await,
    };
    info!(epoch = %claim.epoch, incarnation = %claim.incarnation, "the writer's role is claimed");
    let prepared = tokio::select! {
        biased;
        prepared = prepare(engine, &claim) => prepared,
        why = claim.lease.lost() => Err(TakeoverError::Fenced(why)),
        () = engine.drain.cancelled() => {
            claim.lease.give_back().await;
            return std::ops::ControlFlow::Break(());
        }
    };
    match prepared {
        Ok(pipeline) => {
            *backoff = engine.backoff();
            engine.troubles.clear(Trouble::Leadership);
            let leftovers = pipeline.run().await;
            after(engine, leftovers).await
        }
        Err(TakeoverError::Fenced(why)) => {
            warn!(epoch = %claim.epoch, %why, "the claim was lost before work was accepted");
            claim.lease.give_back().await;
            stay_down_if_final(engine, &why).await
        }
        Err(TakeoverError::Coordination(e)) => {
            claim.lease.give_back().await;
            retry_later(engine, &e, backoff).await
        }
    }
}

enum Contest {
    Won(Claim),
    Held(Option<LeaderInfo>),
}

async fn contest(engine: &Engine) -> Result<Contest, CoordinationError> {
    let incarnation = Incarnation(engine.db.env.entropy.next_u64());
    #[cfg(feature = "sabotage")]
    if isle_storage::sabotage::broken(isle_storage::sabotage::Rule::ReadAfterClaim) {
        isle_storage::sabotage::read_too_early(incarnation, engine.db.load().await?);
    }
    let attempt = tokio::select! {
        biased;
        attempt = engine.db.coordination.claim_writer(&engine.node, incarnation) => attempt.map_err(Database::lost)?,
        // A claim that was won unseen ends with its lease; there is nothing to wait for.
        () = engine.drain.cancelled() => return Err(CoordinationError::Unavailable("the writer is stopping".to_owned())),
    };
    Ok(match attempt {
        ClaimAttempt::Won(claim) => Contest::Won(claim),
        ClaimAttempt::HeldBy(leader) => Contest::Held(leader),
    })
}

/// Waits for a vacancy.
async fn stand_by(engine: &Engine, leader: Option<LeaderInfo>) {
    engine.standing.send_modify(|s| {
        s.role = Role::Standby;
        s.why = Some("another writer leads".to_owned());
        s.leader = leader;
    });
    let at_most = Duration::from_millis(engine.settings.standby_poll_ms);
    tokio::select! {
        biased;
        () = engine.db.coordination.vacancy(at_most) => {}
        () = engine.drain.cancelled() => {}
    }
}

/// From a won claim to a pipeline ready to run: takeover, clock, log, sequencer.
async fn prepare(engine: &Arc<Engine>, claim: &Claim) -> Result<Pipeline, TakeoverError> {
    engine.stand(Role::Starting, Some(format!("taking over as epoch {}", claim.epoch)));
    // Before the bucket is asked for higher epochs: what breaks from here on makes the first commit ask again.
    let connection = engine.db.coordination.connection();
    let loaded = take_over(&engine.db, claim, &engine.node.node).await?;
    // Batches of an earlier epoch can be judged now: an epoch object above theirs stands in the bucket.
    engine.limbo.look_again();
    wait_for_clock(engine, loaded.manifest.last_write_time).await?;
    let s = &engine.settings;
    let rules = GenerationRules {
        bytes: s.generation_bytes,
        segments: s.generation_segments,
        age: s.generation_age(),
    };
    engine.stand(Role::Starting, Some("loading the log beyond the tables".to_owned()));
    let generations = load_until_done(engine, &loaded, rules).await;
    #[cfg(feature = "sabotage")]
    let generations = match engine.kept.lock().take() {
        Some(mut kept) => {
            kept.begin_again();
            kept
        }
        None => generations,
    };
    engine.admission.take_by_force(generations.charge());
    Ok(begin(engine, claim, connection, loaded, generations))
}

/// Loads the log, again and again: the claim is won and adopted, and another one would find the same log, only with
/// one epoch more. The caller gives up by dropping it.
async fn load_until_done(engine: &Arc<Engine>, loaded: &Loaded, rules: GenerationRules) -> Generations {
    let mut backoff = engine.backoff();
    loop {
        match recovery::load(engine, &loaded.manifest, Generations::new(rules)).await {
            Ok(generations) => return generations,
            Err(e) => {
                let pause = if e.is_passing() { backoff.pause() } else { REFUSED_PAUSE };
                warn!(error = %e, retry_in = ?pause, "the log beyond the tables cannot be loaded");
                engine.troubles.set(Trouble::Leadership, e.to_string());
                engine.stand(Role::Starting, Some(e.to_string()));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// From here on mutations are accepted.
fn begin(
    engine: &Arc<Engine>,
    claim: &Claim,
    connection: u64,
    loaded: Loaded,
    generations: Generations,
) -> Pipeline {
    let (s, m) = (&engine.settings, Arc::clone(&loaded.manifest));
    let rules =
        SealRules { bytes: s.segment_bytes as u64, records: s.segment_records, block_bytes: s.block_bytes };
    let mut sequencer = Sequencer::new(claim.epoch, m.last_seq, m.last_write_time, rules);
    sequencer.set_default_ttl(m.default_ttl());
    let term = Arc::new(Term::new(m.database, m.lineage, claim, connection));
    engine.gauges.set_head(m.last_seq, m.flushed_seq, m.version);
    let recovered = generations.len();
    engine.blobs.begin(&term);
    let pipeline = Pipeline::new(Arc::clone(engine), term, claim.clone(), loaded, generations);
    *engine.seat.lock() = Some(sequencer);
    engine.stand_leading(claim.epoch);
    engine.metrics.takeovers.inc();
    info!(epoch = %claim.epoch, last_seq = %m.last_seq, flushed_seq = %m.flushed_seq, version = %m.version, recovered, "leading");
    pipeline
}

/// Write times never decrease, so a clock far behind the log's would stamp everything with one instant until it
/// caught up. Whoever has such a clock is not ready: it lets others try where there can be others.
async fn wait_for_clock(engine: &Engine, last: Timestamp) -> Result<(), TakeoverError> {
    let allowed = Duration::from_millis(engine.settings.max_clock_skew_ms);
    let behind = |now: Timestamp| (last.minus(allowed).0 - now.0).max(0);
    while behind(engine.db.env.clock.now()) > 0 {
        let seconds = behind(engine.db.env.clock.now()) as f64 / 1e6 + allowed.as_secs_f64();
        let why = format!("this node's clock is {seconds:.1} s behind the log's last write time: set it");
        warn!(%why, "not ready");
        engine.troubles.set(Trouble::Clock, why.clone());
        engine.stand(Role::Starting, Some(why.clone()));
        if engine.db.coordination.backend() != Backend::Bucket {
            tokio::time::sleep(CLOCK_PAUSE).await;
            return Err(TakeoverError::Coordination(CoordinationError::Refused(why)));
        }
        tokio::time::sleep(CLOCK_PAUSE).await;
    }
    engine.troubles.clear(Trouble::Clock);
    Ok(())
}

/// What follows the end of an epoch's leadership.
async fn after(engine: &Arc<Engine>, leftovers: Leftovers) -> std::ops::ControlFlow<()> {
    let Leftovers { end, claim, in_doubt, edit_in_doubt } = leftovers;
    match end {
        End::Drained => {
            claim.lease.give_back().await;
            info!(epoch = %claim.epoch, "drained, and the lease is given back");
            std::ops::ControlFlow::Break(())
        }
        End::Dropped => {
            engine.limbo.put(in_doubt, edit_in_doubt);
            // Nothing of this epoch is sent any more. A courtesy to the next one, which need not wait.
            let _ = tokio::time::timeout(GIVE_BACK_AT_MOST, claim.lease.give_back()).await;
            std::ops::ControlFlow::Break(())
        }
        End::Fenced(why) => {
            engine.stand(Role::Starting, Some(format!("leadership was lost: {why}")));
            claim.lease.give_back().await;
            engine.limbo.put(in_doubt, edit_in_doubt);
            limbo::spawn_judge(engine);
            stay_down_if_final(engine, &why).await
        }
    }
}

/// Without leases nobody can tell a fenced writer when to try again, and two that did would fence each other for
/// ever: it stays down until restarted.
async fn stay_down_if_final(engine: &Engine, why: &str) -> std::ops::ControlFlow<()> {
    if engine.db.coordination.backend() != Backend::Bucket {
        return std::ops::ControlFlow::Continue(());
    }
    engine.stand(Role::Fenced, Some(why.to_owned()));
    engine.drain.cancelled().await;
    std::ops::ControlFlow::Break(())
}

async fn retry_later(
    engine: &Engine,
    e: &CoordinationError,
    backoff: &mut Backoff,
) -> std::ops::ControlFlow<()> {
    let pause = if e.is_passing() { backoff.pause() } else { REFUSED_PAUSE };
    warn!(error = %e, retry_in = ?pause, "cannot lead");
    engine.troubles.set(Trouble::Leadership, e.to_string());
    engine.stand(Role::Starting, Some(e.to_string()));
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause) => std::ops::ControlFlow::Continue(()),
        () = engine.drain.cancelled() => std::ops::ControlFlow::Break(()),
    }
}

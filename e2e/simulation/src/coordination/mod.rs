//! The simulated coordination service, as one process sees it over its link.
//!
//! The memory form does what an etcd would do once a request has arrived; on the way there and back everything can go
//! wrong. Beyond what links do to any request, a commit can be answered by the answer of its own repetition ("the head
//! is not the base", although it is this very commit that has moved it), or falsely so without having arrived.

mod lease;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::BoxStream;
use isle_storage::coordination::groups::{GroupChange, GroupOutcome, Groups};
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::coordination::recover::Remains;
use isle_storage::coordination::{
    Backend, Claim, ClaimAttempt, CommitOutcome, Coordination, CoordinationError, HeadState, JobAttempt,
    LeaderInfo, Loaded, Member, NodeInfo, PinAttempt, Proposal, WatchEvent,
};
use isle_storage::ids::{Incarnation, JobId, Lineage, Version};
use isle_storage::manifest::{CheckpointRef, Manifest};
use isle_storage::object::Bucket;

pub use lease::Leases;

use crate::oracle::Oracle;
use crate::world::{ProcessId, Request, Service, Weather, World};

/// What is simulated of one service, for all processes.
#[derive(Debug)]
pub struct Cluster {
    /// The service's state.
    pub memory: Arc<MemoryCoordination>,
    /// Who holds what for how long.
    pub leases: Arc<Leases>,
}

/// The service as one process sees it.
#[derive(Debug, Clone)]
pub struct SimCoordination {
    world: Arc<World>,
    oracle: Arc<Oracle>,
    memory: Arc<MemoryCoordination>,
    leases: Arc<Leases>,
    process: ProcessId,
}

impl SimCoordination {
    /// The service as `process` sees it; checkpoints are read through its `bucket`.
    #[must_use]
    pub fn new(
        world: &Arc<World>,
        oracle: &Arc<Oracle>,
        cluster: &Cluster,
        bucket: Arc<dyn Bucket>,
        process: ProcessId,
    ) -> Arc<Self> {
        let memory = cluster.memory.through(bucket);
        let (world, oracle, leases) = (Arc::clone(world), Arc::clone(oracle), Arc::clone(&cluster.leases));
        Arc::new(Self { world, oracle, memory, leases, process })
    }

    /// One round: `apply` happens when the request arrives. The memory form never makes anybody wait.
    async fn ask<T: Send + 'static, F>(
        &self,
        what: String,
        apply: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Result<T, CoordinationError>
    where
        F: Future<Output = Result<T, CoordinationError>>,
    {
        let this = self.clone();
        let named = what.clone();
        let request = Request { process: self.process, service: Service::Coordination, what };
        let answered = self.world.request(request, move |world| {
            let process = this.process;
            let answer = apply(this).now_or_never().unwrap_or_else(|| {
                Err(CoordinationError::Unavailable("the simulated service made somebody wait".to_owned()))
            });
            match &answer {
                Ok(_) => world.note_of(process, format_args!("{named}: ok")),
                Err(e) => world.note_of(process, format_args!("{named}: {e}")),
            }
            answer
        });
        match answered.await {
            Ok(answer) => answer,
            Err(lost) => Err(CoordinationError::Unavailable(lost.to_string())),
        }
    }

    /// What a commit does when it arrives.
    fn arrive(&self, proposal: &Proposal) -> CommitOutcome {
        let outcome = self.memory.commit(proposal).now_or_never();
        let outcome = outcome.unwrap_or_else(|| CommitOutcome::Unknown("made to wait".to_owned()));
        let (how, why) = match &outcome {
            CommitOutcome::Committed(_) => ("committed", ""),
            CommitOutcome::Moved => ("the head has moved", ""),
            CommitOutcome::Regrouped => ("groups have changed", ""),
            CommitOutcome::Fenced(why) => ("fenced", why.as_str()),
            CommitOutcome::Unknown(why) => ("unknown", why.as_str()),
        };
        let (version, last) = (proposal.edit.version, proposal.head.last_seq);
        self.world.note_of(self.process, format_args!("commit {version} up to {last}: {how} {why}"));
        if let CommitOutcome::Committed(_) = outcome {
            let by = self.world.name(self.process);
            self.oracle.committed(&proposal.edit, &proposal.manifest, Some(&proposal.authority), &by);
        }
        outcome
    }
}

#[async_trait]
impl Coordination for SimCoordination {
    fn backend(&self) -> Backend {
        Backend::Memory
    }

    async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let (genesis, checkpoint) = (genesis.clone(), checkpoint.clone());
        self.ask("bootstrap".to_owned(), |this| async move {
            let won = this.memory.bootstrap(&genesis, &checkpoint).await?;
            if won {
                this.oracle.created(&genesis, &checkpoint);
            }
            Ok(won)
        })
        .await
    }

    async fn remains(&self) -> Result<Remains, CoordinationError> {
        self.ask("remains".to_owned(), |this| async move { this.memory.remains().await }).await
    }

    async fn replace(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let (found, manifest, checkpoint) = (found.clone(), manifest.clone(), checkpoint.clone());
        self.ask(format!("replace the head by {}", manifest.version), move |this| async move {
            let done = this.memory.replace(&found, &manifest, &checkpoint).await?;
            if done {
                this.oracle.recovered(&Arc::new(manifest), &checkpoint);
            }
            Ok(done)
        })
        .await
    }

    async fn exists(&self) -> Result<bool, CoordinationError> {
        self.ask("exists".to_owned(), |this| async move { this.memory.exists().await }).await
    }

    async fn load(&self) -> Result<Loaded, CoordinationError> {
        self.ask("load".to_owned(), |_| async { Ok(()) }).await?;
        self.memory.load().await
    }

    async fn commit(&self, proposal: &Proposal) -> CommitOutcome {
        let (copied, false_answer) = self.world.draw(|rng| (rng.per_mille(8), rng.per_mille(5)));
        let fine = self.world.weather(Weather::is_perfect);
        let (copied, false_answer) = (copied && !fine, false_answer && !fine);
        let (this, proposal) = (self.clone(), proposal.clone());
        let what = format!("commit {} up to {}", proposal.edit.version, proposal.head.last_seq);
        let request = Request { process: self.process, service: Service::Coordination, what };
        let answered = self.world.request(request, move |world| {
            if false_answer {
                world.fault("false answer", format_args!("commit {}", proposal.edit.version));
                return CommitOutcome::Moved;
            }
            let outcome = this.arrive(&proposal);
            if copied {
                world.fault("answer of the copy", format_args!("commit {}", proposal.edit.version));
                return this.arrive(&proposal);
            }
            outcome
        });
        answered.await.unwrap_or_else(|lost| CommitOutcome::Unknown(lost.to_string()))
    }

    async fn fold(&self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome {
        let (this, base, checkpoint) = (self.clone(), base.clone(), checkpoint.clone());
        let what = format!("fold {}", checkpoint.version);
        let request = Request { process: self.process, service: Service::Coordination, what };
        let answered = self.world.request(request, move |world| {
            let outcome = this.memory.fold(&base, &checkpoint, keep).now_or_never();
            let outcome = outcome.unwrap_or_else(|| CommitOutcome::Unknown("made to wait".to_owned()));
            let done = matches!(outcome, CommitOutcome::Committed(_));
            world.note_of(this.process, format_args!("fold {}: {done}", checkpoint.version));
            if done {
                this.oracle.folded(&checkpoint);
            }
            outcome
        });
        answered.await.unwrap_or_else(|lost| CommitOutcome::Unknown(lost.to_string()))
    }

    fn watch(&self, from: &HeadState) -> BoxStream<'static, WatchEvent> {
        watching::watch(&self.world, self.process, self.memory.watch(from))
    }

    async fn claim_writer(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError> {
        let (node, sent) = (node.clone(), tokio::time::Instant::now());
        let attempt = self.ask("claim writer".to_owned(), move |this| async move {
            let attempt = this.memory.claim_writer(&node, incarnation).await?;
            Ok(match attempt {
                ClaimAttempt::Won(claim) => {
                    this.oracle.claimed(claim.epoch);
                    this.world.note_of(this.process, format_args!("claims epoch {}", claim.epoch));
                    let id = this.leases.grant(&this.world, Arc::clone(&claim.lease), "writer", None);
                    Ok((claim, id))
                }
                ClaimAttempt::HeldBy(leader) => Err(leader),
            })
        });
        Ok(match attempt.await? {
            Ok((claim, id)) => ClaimAttempt::Won(Claim { lease: self.keep(id, sent), ..claim }),
            Err(leader) => ClaimAttempt::HeldBy(leader),
        })
    }

    async fn leader(&self) -> Result<Option<LeaderInfo>, CoordinationError> {
        self.ask("leader".to_owned(), |this| async move { this.memory.leader().await }).await
    }

    async fn vacancy(&self, at_most: Duration) {
        self.memory.vacancy(at_most).await;
    }

    async fn claim_job(&self, job: JobId, node: &NodeInfo) -> Result<JobAttempt, CoordinationError> {
        let (node, sent) = (node.clone(), tokio::time::Instant::now());
        let attempt = self.ask(format!("claim job {job}"), move |this| async move {
            Ok(match this.memory.claim_job(job, &node).await? {
                JobAttempt::Won(authority, lease) => {
                    Ok((authority, this.leases.grant(&this.world, lease, "job", None)))
                }
                JobAttempt::HeldBy(who) => Err(who),
            })
        });
        Ok(match attempt.await? {
            Ok((authority, id)) => JobAttempt::Won(authority, self.keep(id, sent)),
            Err(who) => JobAttempt::HeldBy(who),
        })
    }

    async fn job_is_claimed(&self, job: JobId) -> Result<bool, CoordinationError> {
        self.ask(
            format!("is job {job} claimed"),
            move |this| async move { this.memory.job_is_claimed(job).await },
        )
        .await
    }

    async fn pin(&self, version: Version, node: &NodeInfo) -> Result<PinAttempt, CoordinationError> {
        let (node, sent) = (node.clone(), tokio::time::Instant::now());
        let attempt = self.ask(format!("pin {version}"), move |this| async move {
            Ok(match this.memory.pin(version, &node).await? {
                PinAttempt::Held(lease) => {
                    let pin = Some((Arc::clone(&this.oracle), version));
                    Ok(this.leases.grant(&this.world, lease, "pin", pin))
                }
                PinAttempt::Passed(floor) => Err(floor),
            })
        });
        Ok(match attempt.await? {
            Ok(id) => PinAttempt::Held(self.keep(id, sent)),
            Err(floor) => PinAttempt::Passed(floor),
        })
    }

    async fn raise_gc_floor(&self, version: Version) -> Result<Version, CoordinationError> {
        self.ask(format!("raise floor to {version}"), move |this| async move {
            this.memory.raise_gc_floor(version).await
        })
        .await
    }

    async fn groups(&self) -> Result<Groups, CoordinationError> {
        self.ask("groups".to_owned(), |this| async move { this.memory.groups().await }).await
    }

    async fn change_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        let (group, change) = (group.to_owned(), change.clone());
        self.ask(format!("change group {group}"), move |this| async move {
            this.memory.change_group(lineage, &group, &change).await
        })
        .await
    }

    async fn register(&self, member: &Member) -> Result<(), CoordinationError> {
        let member = member.clone();
        self.ask("register".to_owned(), move |this| async move { this.memory.register(&member).await }).await
    }

    async fn members(&self) -> Result<Vec<Member>, CoordinationError> {
        self.ask("members".to_owned(), |this| async move { this.memory.members().await }).await
    }

    fn describe(&self) -> String {
        "simulated coordination".to_owned()
    }
}

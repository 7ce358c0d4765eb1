//! What a seed means: a configuration, and a timeline of what is done to it.

use std::fmt;

use compactor_node::settings::CompactorSettings;
use isle_storage::format::Compression;
use reader_node::ReaderSettings;
use tailer_node::TailerSettings;
use writer_node::WriterSettings;

use crate::rng::Rng;
use crate::world::{MILLI, Micros, ProcessId, SECOND, Service};

/// Which form of coordination is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A service beside the bucket.
    Service,
    /// Numbered edits in the bucket itself.
    Bucket,
}

/// Something that is done to the system at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The process ends without a word.
    Crash(ProcessId),
    /// It is started, if it is not running.
    Start(ProcessId),
    /// It is stopped where it stands.
    Pause(ProcessId),
    /// It goes on.
    Resume(ProcessId),
    /// It drains and closes, and is then started anew.
    Shutdown(ProcessId),
    /// It no longer reaches a service (`true`), or reaches it again.
    Cut(ProcessId, Service, bool),
    /// A service has a bad time, or a good one again.
    Trouble(Service, Trouble),
    /// The coordination service does not answer (`true`), or answers again.
    Down(bool),
    /// Every lease of this kind ends early.
    Expire(&'static str),
    /// A machine's clock is set, by microseconds beside the truth.
    Skew(ProcessId, i64),
    /// Its watches hear nothing (`true`), without saying so.
    Deaf(ProcessId, bool),
    /// The coordination service has lost everything (`true`); it is given its content back.
    Lost(bool),
    /// A copy of the coordination service's content is made.
    Backup,
    /// Every role is stopped, the service is emptied, or set back to the copy (`true`), and somebody runs `recover`.
    Recover(bool),
}

/// What kind of time a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A few misfortunes in a thousand requests.
    None,
    /// Many of each kind, and slow.
    Storm,
    /// Nearly everything is refused.
    Throttling,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// Coordination.
    pub form: Form,
    /// How long processes run before the world goes on: the most two of them can be apart.
    pub tick: Micros,
    /// How many writers there are.
    pub writers: usize,
    /// How many readers.
    pub readers: usize,
    /// How many tailers.
    pub tailers: usize,
    /// How many compactors.
    pub compactors: usize,
    /// How many clients write.
    pub writing: usize,
    /// How many read.
    pub reading: usize,
    /// How many consume.
    pub consuming: usize,
    /// How many take snapshots, read at them and drop them.
    pub holding: usize,
    /// How many take copies, and go on from them.
    pub copying: usize,
    /// How many keys there are.
    pub keys: u64,
    /// How long a lease lives.
    pub lease: Micros,
    /// Whether the store's failures are retried beneath the engines, as they are in the programs.
    pub retries: bool,
    /// The writers' settings.
    pub writer: WriterSettings,
    /// The readers'.
    pub reader: ReaderSettings,
    /// The tailers'.
    pub tailer: TailerSettings,
    /// The compactors'.
    pub compactor: CompactorSettings,
    /// How long the clients work and things go wrong.
    pub active: Micros,
    /// What is done when.
    pub steps: Vec<(Micros, Step)>,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let form = if rng.per_mille(250) { Form::Bucket } else { Form::Service };
        let mut plan = Self {
            seed,
            form,
            tick: *rng.pick(&[2 * MILLI, 3 * MILLI, 5 * MILLI]),
            writers: rng.between(1, 3) as usize,
            readers: rng.between(1, 2) as usize,
            tailers: rng.between(1, 2) as usize,
            compactors: rng.between(1, 2) as usize,
            writing: rng.between(2, 4) as usize,
            reading: rng.between(1, 3) as usize,
            consuming: rng.between(1, 2) as usize,
            holding: 0,
            copying: 0,
            keys: rng.between(3, 24),
            lease: rng.between(600, 2_500) * MILLI,
            retries: rng.per_mille(500),
            writer: writer(&mut rng),
            reader: reader(&mut rng),
            tailer: TailerSettings::default(),
            compactor: compactor(&mut rng),
            active: rng.between(3, 8) * SECOND,
            steps: Vec::new(),
        };
        plan.draw_steps(&mut rng);
        plan.holding = rng.between(0, 2) as usize;
        plan.copying = rng.between(0, 1) as usize;
        // A few rows a batch: a copy takes its time, and goes on where objects have gone.
        plan.tailer.bootstrap_read_bytes = rng.between(1, 3) << 10;
        plan.tailer.bootstrap_linger_seconds = rng.between(0, 3);
        plan.draw_moves(&mut rng);
        plan
    }

    /// The process that recovers, which is none of the roles.
    #[must_use]
    pub fn recovering(&self) -> ProcessId {
        ProcessId(self.roles())
    }

    /// How many processes the roles have.
    #[must_use]
    pub fn roles(&self) -> usize {
        self.writers + self.readers + self.tailers + self.compactors
    }

    /// The names of all processes, by their numbers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let roles = [("w", self.writers), ("r", self.readers), ("t", self.tailers), ("c", self.compactors)];
        let numbered =
            |(role, n): (&str, usize)| (0..n).map(move |i| format!("{role}{i}")).collect::<Vec<_>>();
        roles.into_iter().flat_map(numbered).chain(["recover".to_owned()]).collect()
    }

    /// The number of the first process of each role, in the order of [`Plan::names`].
    #[must_use]
    pub fn firsts(&self) -> [usize; 4] {
        let reader = self.writers;
        let tailer = reader + self.readers;
        [0, reader, tailer, tailer + self.tailers]
    }

    /// Some plans are made for values to move: many of them share a file, are overwritten soon, and the log lets go of them.
    fn draw_moves(&mut self, rng: &mut Rng) {
        self.compactor.blob_garbage_percent = rng.between(10, 60) as u32;
        self.compactor.blob_file_bytes = rng.between(1, 8) << 10;
        if rng.per_mille(250) {
            self.keys = self.keys.min(6);
            self.writer.blob_threshold = 3;
            self.writer.generation_age_ms = self.writer.generation_age_ms.min(400);
            self.compactor.l0_trigger = 1;
            self.compactor.log_retention_seconds = 1;
            self.compactor.blob_garbage_percent = 10;
        }
    }

    fn draw_steps(&mut self, rng: &mut Rng) {
        let all = self.roles() as u64;
        let leases = self.lease;
        for _ in 0..rng.between(2, 9) {
            let at = rng.between(300 * MILLI, self.active);
            // Writers are where most can go wrong.
            let victim = if rng.per_mille(550) { rng.below(self.writers as u64) } else { rng.below(all) };
            let p = ProcessId(victim as usize);
            let short = rng.between(50, 900) * MILLI;
            let long = leases + rng.between(0, 3_000) * MILLI;
            let span = if rng.per_mille(500) { short } else { long };
            let both = [Service::Store, Service::Coordination];
            let service = *rng.pick(&both);
            let mut add = |at: Micros, step: Step| self.steps.push((at, step));
            match rng.below(15) {
                0..=2 => {
                    add(at, Step::Crash(p));
                    add(at + span, Step::Start(p));
                }
                3..=4 => {
                    add(at, Step::Pause(p));
                    add(at + span, Step::Resume(p));
                }
                5..=6 => {
                    add(at, Step::Cut(p, service, true));
                    add(at + span, Step::Cut(p, service, false));
                }
                7 => {
                    for service in both {
                        add(at, Step::Cut(p, service, true));
                        add(at + span, Step::Cut(p, service, false));
                    }
                }
                8..=9 => {
                    add(at, Step::Trouble(service, Trouble::Storm));
                    add(at + span, Step::Trouble(service, Trouble::None));
                }
                10 => {
                    add(at, Step::Trouble(service, Trouble::Throttling));
                    add(at + short, Step::Trouble(service, Trouble::None));
                }
                11 => {
                    add(at, Step::Down(true));
                    add(at + span, Step::Down(false));
                }
                12 => add(at, Step::Expire(rng.pick::<&'static str>(&["writer", "writer", "job", "pin"]))),
                13 => match rng.below(3) {
                    0 => add(at, Step::Shutdown(p)),
                    1 => add(at, Step::Skew(p, rng.between(0, 1_600) as i64 * 1000 - 800_000)),
                    _ => {
                        add(at, Step::Deaf(p, true));
                        add(at + span, Step::Deaf(p, false));
                    }
                },
                _ => {
                    // Two writers at odds: one stopped for longer than its lease, the next one gone right after.
                    add(at, Step::Pause(p));
                    let next = ProcessId((p.0 + 1) % self.writers);
                    add(at + leases + short, Step::Crash(next));
                    add(at + leases + short + short / 2, Step::Resume(p));
                    add(at + leases + 2 * short, Step::Start(next));
                }
            }
        }
        if self.form == Form::Service && rng.per_mille(60) {
            let at = rng.between(500 * MILLI, self.active);
            self.steps.push((at, Step::Lost(true)));
            self.steps.push((at + rng.between(100, 4_000) * MILLI, Step::Lost(false)));
        }
        if self.form == Form::Service && rng.per_mille(100) {
            let at = rng.between(800 * MILLI, self.active);
            let set_back = rng.per_mille(500);
            self.steps.push((rng.between(300 * MILLI, at), Step::Backup));
            self.steps.push((at, Step::Recover(set_back)));
        }
        // Stable: steps of one instant stay in the order in which they were drawn.
        self.steps.sort_by_key(|(at, _)| *at);
    }
}

fn writer(rng: &mut Rng) -> WriterSettings {
    let generation_bytes = rng.between(600, 12_000);
    let (max_value_bytes, max_batch_bytes) = (4096, 80 << 10);
    let segment_bytes = rng.between(200, 4_000) as usize;
    WriterSettings {
        max_value_bytes,
        max_batch_bytes,
        admission_bytes: 2 * generation_bytes
            + 2 * (max_batch_bytes + segment_bytes) as u64
            + rng.below(4_000),
        request_bytes: max_batch_bytes,
        linger_ms: rng.between(0, 30),
        segment_bytes,
        segment_records: rng.between(1, 40),
        block_bytes: rng.between(64, 1_024) as usize,
        compression: *rng.pick(&[Compression::None, Compression::Lz4]),
        uploads_in_flight: rng.between(1, 6) as usize,
        segments_unpublished: rng.between(2, 24) as usize,
        segments_per_commit: rng.between(1, 12) as usize,
        generation_bytes,
        generation_segments: rng.between(2, 24) as usize,
        generation_age_ms: rng.between(200, 2_500),
        flushes_in_flight: rng.between(1, 3) as usize,
        table_bytes: rng.between(200, 8_000),
        table_block_bytes: rng.between(64, 1_024) as usize,
        max_commits_per_second: rng.per_mille(300).then(|| rng.between(10, 60) as u32),
        commit_round_ms: rng.between(200, 3_000),
        ack_timeout_ms: rng.between(1_000, 6_000),
        fold_edits: rng.between(10, 300),
        max_clock_skew_ms: 2_500,
        retry_min_ms: rng.between(5, 40),
        retry_max_ms: rng.between(100, 800),
        standby_poll_ms: rng.between(300, 2_000),
        // Some of the clients' values are larger, and take a few parts.
        blob_threshold: 200,
        blob_part_bytes: 256,
        blob_bytes_in_flight: 1024,
        ..WriterSettings::default()
    }
}

fn reader(rng: &mut Rng) -> ReaderSettings {
    ReaderSettings {
        cache_bytes: 1 << 20,
        max_view_age_ms: 2_000,
        read_ahead_bytes: 4 << 10,
        read_ahead_total_bytes: rng.between(4, 16) << 10,
        max_concurrent_reads: rng.between(1, 8) as usize,
        max_concurrent_segments: rng.between(1, 8) as usize,
        generation_bytes: rng.between(500, 20_000),
        default_wait_ms: 1_500,
        max_wait_ms: 5_000,
        held_views: rng.between(0, 6) as usize,
        held_view_age_ms: rng.between(100, 2_000),
        ..ReaderSettings::default()
    }
}

fn compactor(rng: &mut Rng) -> CompactorSettings {
    let l0_trigger = rng.between(1, 4) as usize;
    CompactorSettings {
        l0_trigger,
        tier_width: rng.between(2, 4) as usize,
        max_runs: rng.between(2, 8) as usize,
        max_merge_width: rng.between(4, 12) as usize,
        table_bytes: 64 << 10,
        block_bytes: 512,
        read_ahead_bytes: rng.between(1, 8) << 10,
        upload_bytes_in_flight: 128 << 10,
        max_clock_skew_seconds: 2,
        fold_edits: rng.between(5, 60),
        grace_seconds: rng.between(1, 2),
        max_deletes_per_pass: rng.between(8, 60) as usize,
        sweep_interval_seconds: rng.between(1, 4),
        orphan_age_seconds: rng.between(1, 3),
        log_retention_seconds: if rng.per_mille(300) { rng.between(2, 4) } else { 0 },
        backoff_seconds: (0.05, 0.5),
        merge_workers: rng.between(1, 2) as usize,
        // Half of the plans cut all but the smallest merges into parts.
        part_bytes: if rng.per_mille(500) { rng.between(256, 4096) } else { 1 << 30 },
        parts_max_age_seconds: rng.between(1, 4),
        ..CompactorSettings::default()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let name = |p: &ProcessId| names.get(p.0).cloned().unwrap_or_default();
        writeln!(
            f,
            "seed {}: coordination {:?}, {} writers, {} readers, {} tailers, {} compactors; lease {} ms, grace {} s, \
             {} ms active",
            self.seed,
            self.form,
            self.writers,
            self.readers,
            self.tailers,
            self.compactors,
            self.lease / MILLI,
            self.compactor.grace_seconds,
            self.active / MILLI
        )?;
        for (at, step) in &self.steps {
            write!(f, "{:>8} ms  ", at / MILLI)?;
            match step {
                Step::Crash(p) => writeln!(f, "{} crashes", name(p))?,
                Step::Start(p) => writeln!(f, "{} starts", name(p))?,
                Step::Pause(p) => writeln!(f, "{} is stopped", name(p))?,
                Step::Resume(p) => writeln!(f, "{} goes on", name(p))?,
                Step::Shutdown(p) => writeln!(f, "{} shuts down and starts anew", name(p))?,
                Step::Cut(p, s, true) => writeln!(f, "{} is cut off from {s:?}", name(p))?,
                Step::Cut(p, s, false) => writeln!(f, "{} reaches {s:?} again", name(p))?,
                Step::Trouble(s, t) => writeln!(f, "trouble at {s:?}: {t:?}")?,
                Step::Down(true) => writeln!(f, "the coordination service stops")?,
                Step::Down(false) => writeln!(f, "the coordination service answers again")?,
                Step::Expire(what) => writeln!(f, "every {what} lease ends early")?,
                Step::Skew(p, by) => writeln!(f, "the clock of {} is off by {} ms", name(p), by / 1000)?,
                Step::Deaf(p, true) => writeln!(f, "the watches of {} go deaf", name(p))?,
                Step::Deaf(p, false) => writeln!(f, "the watches of {} hear again", name(p))?,
                Step::Backup => writeln!(f, "a copy of the coordination service is made")?,
                Step::Recover(false) => {
                    writeln!(f, "everything stops, coordination is emptied and recovered")?
                }
                Step::Recover(true) => {
                    writeln!(f, "everything stops, coordination is set back and recovered")?
                }
                Step::Lost(true) => writeln!(f, "the coordination service has lost everything")?,
                Step::Lost(false) => writeln!(f, "the coordination service has its content back")?,
            }
        }
        Ok(())
    }
}

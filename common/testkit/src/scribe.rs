//! A small writer for tests of the other roles: appends segments, flushes generations, and keeps a model of what it
//! wrote. It goes through the real formats, the real takeover and the real commit, but knows no batching, no pipeline
//! and no failure: every call commits or panics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::blob::BlobEncoder;
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{Claim, ClaimAttempt, Loaded, NodeInfo, claim};
use isle_storage::database::Database;
use isle_storage::format::Compression;
use isle_storage::ids::{CommitId, Incarnation, SeqNo, Timestamp};
use isle_storage::log::{self, Batch, EncodedLog, LogHeader, Push, RawBlock, SealedBatch};
use isle_storage::manifest::{Author, Change, Edit, LogTail, Manifest};
use isle_storage::names::{self, LogKind};
use isle_storage::row::{BlobId, BlobPointer, Row, ValueRef};
use isle_storage::sst::{TableBuilder, TableOptions};
use tokio::time::Instant;

/// One mutation for a [`Scribe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// When the value expires.
    pub expires: Option<Timestamp>,
}

impl Entry {
    /// A put.
    #[must_use]
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: Some(value.into()), expires: None }
    }

    /// A delete.
    #[must_use]
    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: None, expires: None }
    }
}

/// The small writer.
#[derive(Debug)]
pub struct Scribe {
    /// The database it writes.
    pub db: Database,
    /// The newest manifest it made.
    pub loaded: Loaded,
    /// Every mutation ever appended, by sequence number (first is 1).
    pub history: Vec<(SeqNo, Entry)>,
    /// Data blocks and tables of flushes: small, so that few rows already make many blocks.
    pub table_options: TableOptions,
    /// A flush splits its tables at this many bytes.
    pub table_bytes: u64,
    /// Values longer than this go into a blob file, one a segment; none do until it is set.
    pub blob_threshold: usize,
    claim: Claim,
    generation: Vec<RawBlock>,
    parts: Vec<LogTail>,
    starts_generation: bool,
    tables: u64,
}

impl Scribe {
    /// Takes over `db`, which must be vacant.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn take_over(db: &Database) -> Self {
        let node = NodeInfo { node: "scribe".to_owned(), advertise: "http://scribe".to_owned() };
        let incarnation = Incarnation(db.env.entropy.next_u64());
        let claim = match db.coordination.claim_writer(&node, incarnation).await {
            Ok(ClaimAttempt::Won(claim)) => claim,
            other => panic!("the scribe cannot claim the writer's role: {other:?}"),
        };
        let loaded = match claim::take_over(db, &claim, &node.node).await {
            Ok(loaded) => loaded,
            Err(e) => panic!("the scribe cannot take over: {e}"),
        };
        let mut scribe = Self {
            db: db.clone(),
            loaded,
            history: Vec::new(),
            table_options: TableOptions { block_bytes: 512, ..TableOptions::default() },
            table_bytes: 16 << 10,
            blob_threshold: usize::MAX,
            claim,
            generation: Vec::new(),
            parts: Vec::new(),
            starts_generation: true,
            tables: 0,
        };
        scribe.load_unflushed().await;
        scribe
    }

    /// The log beyond the tables becomes part of the next flush.
    async fn load_unflushed(&mut self) {
        for entry in self.loaded.manifest.unflushed() {
            let object = match self.db.bucket.get(&entry.path()).await {
                Ok(bytes) => log::decode(&bytes),
                Err(e) => panic!("the scribe cannot read {}: {e}", entry.path()),
            };
            match object {
                Ok(object) => self.generation.extend(object.blocks),
                Err(e) => panic!("the scribe cannot read {}: {e}", entry.path()),
            }
            self.parts.push(LogTail { id: entry.id, last_seq: entry.last_seq });
            self.starts_generation = false;
        }
    }

    /// The newest manifest.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.loaded.manifest
    }

    /// Appends `entries` as one segment and commits it.
    pub async fn append(&mut self, entries: &[Entry]) -> SeqNo {
        let manifest = Arc::clone(self.manifest());
        let (places, blobs) = self.store(entries).await;
        let Some((encoded, sealed)) = self.encode(manifest.tail, entries, &places) else {
            return manifest.last_seq;
        };
        self.history.extend((sealed.first_seq.0..).map(SeqNo).zip(entries.iter().cloned()));
        self.starts_generation = false;
        self.put(&encoded.entry.path(), encoded.body).await;
        self.parts.push(LogTail { id: encoded.entry.id, last_seq: encoded.entry.last_seq });
        self.generation.extend(sealed.blocks.iter().cloned());
        let mut changes = vec![Change::AppendLog { segments: vec![Arc::new(encoded.entry)] }];
        if !blobs.is_empty() {
            changes.insert(0, Change::AddBlobs { blobs });
        }
        self.commit(changes).await;
        sealed.last_seq
    }

    /// Stores the large values of `entries` in one blob file: where each lies, and the file with its length.
    async fn store(&mut self, entries: &[Entry]) -> (Vec<Option<BlobPointer>>, BTreeMap<BlobId, u64>) {
        let owner = names::writer_owner(self.claim.epoch, self.claim.incarnation);
        let name = format!("{owner}-{}", self.tables);
        let (mut file, mut encoder) = (Vec::new(), BlobEncoder::new());
        let mut place = |entry: &Entry| {
            let value = entry.value.as_ref().filter(|v| v.len() > self.blob_threshold)?;
            encoder.write(value, &mut file);
            let (offset, len, crc) = encoder.end_value(&mut file);
            Some(BlobPointer { blob: name.clone(), offset, len, crc })
        };
        let places: Vec<_> = entries.iter().map(&mut place).collect();
        if places.iter().all(Option::is_none) {
            return (places, BTreeMap::new());
        }
        self.tables += 1;
        encoder.finish(&mut file);
        let len = file.len() as u64;
        self.put(&names::blob(&name), file.into()).await;
        (places, BTreeMap::from([(name, len)]))
    }

    /// The segment of `entries` after `previous`, neither uploaded nor committed: what a writer has in flight.
    #[must_use]
    pub fn in_flight(&self, previous: Option<LogTail>, entries: &[Entry]) -> Option<EncodedLog> {
        self.encode(previous, entries, &[]).map(|(encoded, _)| encoded)
    }

    fn encode(
        &self,
        previous: Option<LogTail>,
        entries: &[Entry],
        places: &[Option<BlobPointer>],
    ) -> Option<(EncodedLog, SealedBatch)> {
        let manifest = self.manifest();
        let time = self.db.env.clock.now().max(manifest.last_write_time);
        let first_seq = previous.map(|p| p.last_seq).unwrap_or_default().next();
        let mut batch = Batch::new(first_seq, 4096);
        for (i, e) in entries.iter().enumerate() {
            let push = match places.get(i).and_then(Option::as_ref) {
                Some(place) => Push::Blob(place.as_ref()),
                None => e.value.as_deref().map_or(Push::Delete, Push::Put),
            };
            batch.push(&e.key, time, e.expires, push);
        }
        let sealed = batch.seal()?;
        let header = LogHeader {
            kind: LogKind::Segment,
            database: manifest.database,
            lineage: manifest.lineage,
            epoch: self.claim.epoch,
            incarnation: self.claim.incarnation,
            first_seq: sealed.first_seq,
            last_seq: sealed.last_seq,
            previous,
            starts_generation: self.starts_generation,
            blobs: Vec::new(),
            parts: Vec::new(),
        };
        Some((log::encode_segment(&header, &sealed, Compression::Lz4), sealed))
    }

    /// Turns everything appended since the last flush into one run of tables and one chunk.
    pub async fn flush(&mut self) {
        let blocks = std::mem::take(&mut self.generation);
        let parts = std::mem::take(&mut self.parts);
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return };
        let (first_seq, last_seq) = (first.first_seq, last.last_seq());
        let manifest = Arc::clone(self.manifest());
        let header = LogHeader {
            kind: LogKind::Chunk,
            database: manifest.database,
            lineage: manifest.lineage,
            epoch: self.claim.epoch,
            incarnation: self.claim.incarnation,
            first_seq,
            last_seq,
            previous: None,
            starts_generation: false,
            blobs: blobs_in(&blocks),
            parts,
        };
        let chunk = log::encode_chunk(&header, &blocks, 4096, Compression::Lz4);
        self.put(&chunk.entry.path(), chunk.body).await;
        let mut rows: Vec<Row> =
            blocks.iter().flat_map(|b| b.rows().map(|r| r.to_row()).collect::<Vec<_>>()).collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
        let tables = self.write_tables(&rows).await;
        self.starts_generation = true;
        let chunk = Some(Arc::new(chunk.entry));
        self.commit(vec![Change::Flush { flushed_seq: last_seq, tables, chunk }]).await;
    }

    async fn write_tables(&mut self, rows: &[Row]) -> Vec<Arc<isle_storage::manifest::TableEntry>> {
        let mut tables = Vec::new();
        let mut builder = TableBuilder::new(self.table_options);
        for row in rows {
            if builder.estimated_len() >= self.table_bytes && builder.last_key() != Some(&row.key[..]) {
                let full = std::mem::replace(&mut builder, TableBuilder::new(self.table_options));
                tables.push(self.write_table(full).await);
            }
            builder.push(row.as_ref());
        }
        tables.push(self.write_table(builder).await);
        tables
    }

    async fn write_table(&mut self, builder: TableBuilder) -> Arc<isle_storage::manifest::TableEntry> {
        self.tables += 1;
        let owner = names::writer_owner(self.claim.epoch, self.claim.incarnation);
        let table = builder.finish(&format!("{owner}-{}", self.tables));
        self.put(&table.entry.path(), table.body).await;
        Arc::new(table.entry)
    }

    /// Commits `changes` under the writer's authority.
    ///
    /// # Panics
    /// Where they do not fit or cannot be committed.
    pub async fn commit(&mut self, changes: Vec<Change>) {
        for _ in 0..100 {
            let manifest = Arc::clone(self.manifest());
            let edit = Edit {
                version: manifest.version.next(),
                lineage: manifest.lineage,
                epoch: self.claim.epoch,
                commit: CommitId(self.db.env.entropy.next_u64()),
                author: Author::Writer,
                changes: changes.clone(),
                required_features: Vec::new(),
                extra: BTreeMap::new(),
            };
            let proposal = match commit::propose(&self.loaded.state, &manifest, edit, &self.claim.authority) {
                Ok(proposal) => proposal,
                Err(e) => panic!("the scribe's edit does not fit: {e}"),
            };
            let as_of = Instant::now();
            match commit::commit(&self.db, &proposal, as_of + Duration::from_secs(30)).await {
                Resolved::Committed(state) => {
                    self.loaded = Loaded { state, manifest: Arc::clone(&proposal.manifest), as_of };
                    return;
                }
                Resolved::CommittedEarlier(loaded) => {
                    self.loaded = loaded;
                    return;
                }
                // A compactor under test has committed in between.
                Resolved::Moved(loaded) => self.loaded = loaded,
                other => panic!("the scribe's commit ended in {other:?}"),
            }
        }
        panic!("the scribe lost a hundred commits in a row");
    }

    /// What a reader of sequence number `at` must see at the instant `now`: the model.
    #[must_use]
    pub fn visible_at(&self, at: SeqNo, now: Timestamp) -> BTreeMap<Vec<u8>, (SeqNo, Vec<u8>)> {
        let mut seen = BTreeMap::new();
        for (seq, e) in self.history.iter().take_while(|(seq, _)| *seq <= at) {
            match &e.value {
                Some(v) if e.expires.is_none_or(|x| x > now) => {
                    seen.insert(e.key.clone(), (*seq, v.clone()));
                }
                _ => {
                    seen.remove(&e.key);
                }
            }
        }
        seen
    }

    async fn put(&self, path: &names::ObjectPath, body: isle_storage::object::Body) {
        if let Err(e) = self.db.bucket.put(path, body).await {
            panic!("the scribe cannot upload: {e}");
        }
    }
}

/// The blob files that the rows of `blocks` point at.
fn blobs_in(blocks: &[RawBlock]) -> Vec<BlobId> {
    let rows = blocks.iter().flat_map(RawBlock::rows);
    let named: std::collections::BTreeSet<BlobId> = rows
        .filter_map(|row| match row.value {
            ValueRef::Blob(p) => Some(p.blob.to_owned()),
            _ => None,
        })
        .collect();
    named.into_iter().collect()
}

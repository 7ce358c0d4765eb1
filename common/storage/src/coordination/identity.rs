//! Identity and bootstrap: `isle.json`, the first lineage object, and the refusals that keep a prefix from being driven
//! as something it is not.
//!
//! # What is refused, by every role
//! - `isle.json` of another name, another backend, a newer format;
//! - **`isle.json` present and the head absent**: `coordination_lost`. A wiped etcd (or a wrong root) looks exactly like
//!   a fresh one; a role that took it for an empty database would answer "not found" for everything, and the sweep would
//!   delete everything as unreferenced;
//! - a head whose manifest is of another database, or of another lineage than the newest in the bucket.
//!
//! # Creation
//! The steps are ordered so that a crash between any two leaves something the next creator can finish, and so that two
//! creators at once end with one database.
//! ```text
//!   head in the bucket (bucket form)        head elsewhere (etcd, memory)
//!   1 isle.json         create if absent     1 genesis checkpoint   fresh name
//!   2 lineage-1         derived from 1       2 head                 IF there is none: one creator wins
//!   3 genesis checkpoint                     3 lineage-1            derived from the head
//!   4 head (fold-1)     create if absent     4 isle.json            derived from the head
//! ```
//! **Why two orders.** The bucket form runs only where create is atomic, so `isle.json` itself picks the winner. The
//! etcd form also runs on stores that take two conditional creates of one name for good; there an `isle.json` written
//! first could be the loser's while the head is the winner's, for ever. Written last, and derived from the head, every
//! creator writes the same bytes, early or late, and nothing can disagree. It also closes a hole: were a bare
//! `isle.json` enough to finish somebody's creation, a process pointed at another etcd at the wrong moment would create
//! a second head for the same prefix. So with a head outside the bucket there is no exception to `coordination_lost`.
//!
//! **Crashes.** Left column: after 1 to 3 there is an `isle.json` and no head; a creator finishes it, but only where
//! nothing but the traces of that creation lies in the prefix. Right column: after 1 an orphaned checkpoint of version 1
//! lies about and creation starts anew; after 2 and 3 the head is there and `isle.json` is not: the next creator finds
//! the head, sees that the checkpoint it names lies in *this* bucket (the proof that it is this database's), and goes on
//! from 3.

use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::lineage::{self, LineageObject};
use super::write_once::{Written, get_if_there, write_once};
use super::{Backend, Coordination, CoordinationError, Loaded, checkpoint};
use crate::environment::Environment;
use crate::ids::{DatabaseId, Lineage, Version};
use crate::manifest::{CompactionMode, Manifest};
use crate::names;
use crate::object::Bucket;
use crate::sabotage::{Rule, broken};

/// Version of the layout of a prefix.
pub const FORMAT: u32 = 1;

/// Content of `isle.json`, written once at creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The database, for ever.
    pub database: DatabaseId,
    /// Its name: selects the etcd subtree, labels metrics.
    pub name: String,
    /// Version of the layout; a larger one is refused.
    pub format: u32,
    /// What drives it.
    pub backend: Backend,
    /// Its first lineage.
    pub lineage: Lineage,
}

/// Whether a role may create the database where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenMode {
    /// The writer, and `isle up`.
    CreateIfMissing(CompactionMode),
    /// Everybody else: [`CoordinationError::NotFound`] until a writer has created it.
    Existing,
}

/// Opens a database's identity: refuses a wrong name, backend or format, a lost head, a head of another database, and
/// for a role that writes a store that cannot carry the form; creates where allowed.
///
/// # Errors
/// [`CoordinationError`]; passing ones may be retried, and so may `NotFound` (a writer may be creating it right now).
pub async fn open(
    bucket: &Arc<dyn Bucket>,
    coordination: &Arc<dyn Coordination>,
    env: &Environment,
    name: &str,
    mode: &OpenMode,
) -> Result<Identity, CoordinationError> {
    check_name(name)?;
    if matches!(mode, OpenMode::CreateIfMissing(_)) {
        coordination.prepare_to_write().await?;
    }
    let opening = Opening { bucket: bucket.as_ref(), coordination: coordination.as_ref(), env, name };
    match (opening.read_identity().await?, mode) {
        (Some(identity), _) => opening.existing(identity, mode).await,
        (None, OpenMode::Existing) => Err(opening.not_there()),
        (None, OpenMode::CreateIfMissing(compaction)) => opening.create(compaction).await,
    }
}

/// A database's name: 1 to 63 of `[a-z0-9-]`, since it stands in etcd keys and metric labels.
///
/// # Errors
/// `Refused`, with the rule.
pub fn check_name(name: &str) -> Result<(), CoordinationError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(CoordinationError::Refused(format!("{name:?} is no database name: use 1 to 63 of a-z, 0-9 and -")))
}

/// Reads and judges the identity of a database that must be there, whatever has become of its head.
///
/// # Errors
/// `NotFound` where there is none; `WrongDatabase` for another name or backend; `Damaged`; the store's.
pub async fn read(bucket: &dyn Bucket, name: &str, backend: Backend) -> Result<Identity, CoordinationError> {
    check_name(name)?;
    let Some(found) = read_identity(bucket).await? else {
        return Err(CoordinationError::NotFound(bucket.url()));
    };
    judge(&found, bucket, name, backend)?;
    Ok(found)
}

/// Writes the identity of a database whose head was put there by other means than a creation. Finding the same is fine.
///
/// # Errors
/// `WrongDatabase` where another one stands there, which is left alone; the store's.
pub async fn write(bucket: &dyn Bucket, identity: &Identity) -> Result<(), CoordinationError> {
    let path = names::identity();
    let mut json = serde_json::to_vec_pretty(identity)
        .map_err(|e| CoordinationError::Damaged(format!("{path} could not be written as JSON: {e}")))?;
    json.push(b'\n');
    match write_once(bucket, &path, &json.into()).await? {
        Written::Ours => Ok(()),
        Written::Other(_) => Err(CoordinationError::WrongDatabase(format!(
            "{} has an isle.json of another database",
            bucket.url()
        ))),
    }
}

async fn read_identity(bucket: &dyn Bucket) -> Result<Option<Identity>, CoordinationError> {
    let path = names::identity();
    let Some(bytes) = get_if_there(bucket, &path).await? else { return Ok(None) };
    let identity = serde_json::from_slice(&bytes)
        .map_err(|e| CoordinationError::Damaged(format!("{path} in {} is damaged: {e}", bucket.url())))?;
    Ok(Some(identity))
}

fn judge(
    found: &Identity,
    bucket: &dyn Bucket,
    name: &str,
    backend: Backend,
) -> Result<(), CoordinationError> {
    let url = bucket.url();
    if found.format > FORMAT {
        return Err(CoordinationError::Damaged(format!(
            "{url} has layout {}, this program knows {FORMAT}: upgrade it",
            found.format
        )));
    }
    if found.name != name {
        return Err(CoordinationError::WrongDatabase(format!(
            "{url} holds the database {:?}, not {name:?}",
            found.name
        )));
    }
    if found.backend != backend {
        return Err(CoordinationError::WrongDatabase(format!(
            "the database in {url} is coordinated by {}, not by {backend}",
            found.backend
        )));
    }
    Ok(())
}

struct Opening<'a> {
    bucket: &'a dyn Bucket,
    coordination: &'a dyn Coordination,
    env: &'a Environment,
    name: &'a str,
}

impl Opening<'_> {
    async fn read_identity(&self) -> Result<Option<Identity>, CoordinationError> {
        read_identity(self.bucket).await
    }

    /// The database has an `isle.json`.
    async fn existing(&self, found: Identity, mode: &OpenMode) -> Result<Identity, CoordinationError> {
        self.judge(&found)?;
        if !self.coordination.exists().await? {
            self.head_is_absent(&found, mode).await?;
        }
        let loaded = self.coordination.load().await?;
        self.same_database(&found, &loaded.manifest)?;
        lineage::check(self.bucket, found.database, loaded.manifest.lineage).await?;
        Ok(found)
    }

    fn judge(&self, found: &Identity) -> Result<(), CoordinationError> {
        judge(found, self.bucket, self.name, self.coordination.backend())
    }

    fn same_database(&self, found: &Identity, head: &Manifest) -> Result<(), CoordinationError> {
        if head.database == found.database {
            return Ok(());
        }
        Err(CoordinationError::WrongDatabase(format!(
            "{} is database {}, the head is that of database {}: the wrong bucket, or the wrong coordination service",
            self.bucket.url(),
            found.database,
            head.database
        )))
    }

    /// `isle.json` without a head: lost, unless it is a creation in the bucket form that has not come to its end.
    async fn head_is_absent(&self, found: &Identity, mode: &OpenMode) -> Result<(), CoordinationError> {
        let unfinished = found.backend == Backend::Bucket && self.holds_only_a_creation().await?;
        // What the listing showed beyond a creation's traces may be the head, put there by somebody else just now.
        if !unfinished && self.coordination.exists().await? {
            return Ok(());
        }
        if let OpenMode::CreateIfMissing(compaction) = mode
            && broken(Rule::MissingHeadIsRefused)
        {
            return self
                .bootstrap(&Manifest::genesis(found.database, found.lineage, compaction.clone()))
                .await;
        }
        match mode {
            OpenMode::CreateIfMissing(compaction) if unfinished => {
                self.finish_in_bucket(found, compaction).await
            }
            OpenMode::Existing if unfinished => Err(self.not_there()),
            _ => Err(CoordinationError::Lost(format!(
                "{} holds the database {:?} ({}), but {} has no head for it: the coordination service was wiped, or \
                 its address or root is wrong. Nothing was changed; mend the setting, or rebuild the head with \
                 `isle recover`",
                self.bucket.url(),
                found.name,
                found.database,
                self.coordination.describe()
            ))),
        }
    }

    async fn create(&self, compaction: &CompactionMode) -> Result<Identity, CoordinationError> {
        match self.coordination.backend() {
            Backend::Bucket => self.create_in_bucket(compaction).await,
            Backend::Etcd | Backend::Memory => self.create_by_head(compaction).await,
        }
    }

    /// The left column: `isle.json` picks the winner.
    async fn create_in_bucket(&self, compaction: &CompactionMode) -> Result<Identity, CoordinationError> {
        if !self.holds_only_a_creation().await? {
            return self.occupied(compaction).await;
        }
        let drawn = self.identity_of(DatabaseId(self.env.entropy.next_u128()), self.draw_lineage());
        let winner = self.write_identity(&drawn).await?;
        self.judge(&winner)?;
        self.finish_in_bucket(&winner, compaction).await?;
        self.settled(winner).await
    }

    async fn finish_in_bucket(
        &self,
        identity: &Identity,
        compaction: &CompactionMode,
    ) -> Result<(), CoordinationError> {
        lineage::write(self.bucket, &first_lineage(identity.database, identity.lineage)).await?;
        self.bootstrap(&Manifest::genesis(identity.database, identity.lineage, compaction.clone())).await
    }

    /// The right column: the head picks the winner, everything else follows from it.
    async fn create_by_head(&self, compaction: &CompactionMode) -> Result<Identity, CoordinationError> {
        if !self.coordination.exists().await? {
            if !self.holds_only_a_creation().await? {
                return self.occupied(compaction).await;
            }
            let database = DatabaseId(self.env.entropy.next_u128());
            self.bootstrap(&Manifest::genesis(database, self.draw_lineage(), compaction.clone())).await?;
        }
        let Loaded { manifest, .. } = self.coordination.load().await?;
        if manifest.version != Version(1) {
            return self.occupied(compaction).await;
        }
        lineage::write(self.bucket, &first_lineage(manifest.database, manifest.lineage)).await?;
        let derived = self.identity_of(manifest.database, manifest.lineage);
        let written = self.write_identity(&derived).await?;
        self.judge(&written)?;
        self.same_database(&written, &manifest)?;
        self.settled(written).await
    }

    /// There was no `isle.json` and there are other objects: either somebody has just created the database, or this is
    /// no fresh prefix.
    async fn occupied(&self, compaction: &CompactionMode) -> Result<Identity, CoordinationError> {
        match self.read_identity().await? {
            Some(identity) => {
                Box::pin(self.existing(identity, &OpenMode::CreateIfMissing(compaction.clone()))).await
            }
            None => Err(CoordinationError::Refused(format!(
                "{} holds objects of a database but no isle.json: it was removed, this is not the database's own prefix, \
                 or a restore has not come to its end (run it again). Nothing was changed",
                self.bucket.url()
            ))),
        }
    }

    async fn bootstrap(&self, genesis: &Manifest) -> Result<(), CoordinationError> {
        let written = checkpoint::write_verified(self.bucket, self.env, genesis).await?;
        let won = self.coordination.bootstrap(genesis, &written).await?;
        tracing::info!(database = %genesis.database, lineage = %genesis.lineage, won, "bootstrapped");
        Ok(())
    }

    /// The last look after a creation: somebody else's may have won.
    async fn settled(&self, identity: Identity) -> Result<Identity, CoordinationError> {
        Box::pin(self.existing(identity, &OpenMode::Existing)).await
    }

    async fn write_identity(&self, identity: &Identity) -> Result<Identity, CoordinationError> {
        let path = names::identity();
        let mut json = serde_json::to_vec_pretty(identity)
            .map_err(|e| CoordinationError::Damaged(format!("{path} could not be written as JSON: {e}")))?;
        json.push(b'\n');
        match write_once(self.bucket, &path, &json.into()).await? {
            Written::Ours => Ok(identity.clone()),
            Written::Other(_) => self.read_identity().await?.ok_or_else(|| self.not_there()),
        }
    }

    /// Whether nothing lies in the prefix but what an unfinished creation leaves behind. A restore marks it before it
    /// copies the first object.
    async fn holds_only_a_creation(&self) -> Result<bool, CoordinationError> {
        if get_if_there(self.bucket, &names::restore_mark()).await?.is_some() {
            return Ok(false);
        }
        for folder in ["log", "table", "blob"] {
            if self.bucket.list(folder).try_next().await?.is_some() {
                return Ok(false);
            }
        }
        let mut manifest = self.bucket.list("manifest");
        while let Some(object) = manifest.try_next().await? {
            let genesis = names::parse_checkpoint(&object.path) == Some(Version(1));
            if !genesis && names::parse_lineage(&object.path) != Some(1) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn identity_of(&self, database: DatabaseId, lineage: Lineage) -> Identity {
        let backend = self.coordination.backend();
        Identity { database, name: self.name.to_owned(), format: FORMAT, backend, lineage }
    }

    fn draw_lineage(&self) -> Lineage {
        Lineage(self.env.entropy.next_u128())
    }

    fn not_there(&self) -> CoordinationError {
        CoordinationError::NotFound(self.bucket.url())
    }
}

fn first_lineage(database: DatabaseId, lineage: Lineage) -> LineageObject {
    LineageObject { database, number: 1, lineage }
}

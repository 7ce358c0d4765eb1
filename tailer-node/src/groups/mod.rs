//! Consumer groups: durable cursors, kept by coordination and by no tailer, so that any of them serves any group.
//!
//! ```text
//!   consume_group ──▶ cursor ──▶ consumer … changes … ──▶ commit_group ──▶ coalesced ──▶ one write ──▶ answered
//!                       ▲                                   │ 3, 7, 5 …       │ 7
//!                       └───────────── coordination ◀───────┴─────────────────┘
//! ```
//! A group's cursor says what was consumed, so a consumer that dies between a change and its commit is given that change
//! again, and one that commits what it has done is given nothing twice. Nobody is given a group alone: two consumers of
//! one group both get everything, and the further commit stands.

mod commits;
mod watch;

use isle_storage::coordination::groups::{GroupChange, GroupOutcome};
use isle_storage::ids::{Lineage, SeqNo};
use isle_storage::manifest::{GroupCursor, Lag, Manifest, MaxLag};
use isle_storage::names;

pub(crate) use commits::Commits;
pub(crate) use watch::{GroupLags, watch};

use crate::cursor::{Cursor, From};
use crate::error::TailError;
use crate::tailer::{Consumer, Tailer};

/// A consumer group as a tailer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Everything up to here is consumed.
    pub cursor: Cursor,
    /// How far behind it may be and still hold the log.
    pub max_lag: MaxLag,
    /// How far behind it is.
    pub lag: Lag,
    /// Whether log that it has not consumed is gone: it cannot go on where it was.
    pub expired: bool,
}

/// What a commit of a cursor came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The group's cursor, stored: the one committed, or a later one.
    pub cursor: Cursor,
    /// Whether the group was at or before the cursor committed; if not, nothing was changed.
    pub moved: bool,
}

impl Group {
    fn of(name: &str, group: &GroupCursor, m: &Manifest) -> Self {
        Self {
            name: name.to_owned(),
            cursor: Cursor { database: m.database, lineage: m.lineage, seq: group.seq },
            max_lag: group.max_lag,
            lag: m.lag_after(group.seq),
            expired: group.seq < m.trimmed_seq,
        }
    }
}

impl Tailer {
    /// Every consumer group, as it is stored now.
    ///
    /// # Errors
    /// [`TailError::NotReady`], [`TailError::Coordination`].
    pub async fn groups(&self) -> Result<Vec<Group>, TailError> {
        let manifest = self.manifest()?;
        let read = self.database().coordination.groups().await.map_err(TailError::Coordination)?;
        let all = read.cursors.iter().map(|(name, cursor)| Group::of(name, cursor, &manifest));
        Ok(all.collect())
    }

    /// One consumer group, as it is stored now.
    ///
    /// # Errors
    /// [`TailError::UnknownGroup`]; as [`Tailer::groups`].
    pub async fn group(&self, name: &str) -> Result<Group, TailError> {
        names::check_group(name).map_err(TailError::InvalidGroup)?;
        let all = self.groups().await?;
        all.into_iter().find(|g| g.name == name).ok_or_else(|| TailError::UnknownGroup(name.to_owned()))
    }

    /// Makes sure that there is a group of that name; one that begins, begins at `start`. Where there was one it stays where
    /// it is, and takes `max_lag` where that says something. Gives back the group, and whether it began.
    ///
    /// # Errors
    /// [`TailError`]: as [`Tailer::consume`] of the start; too many groups.
    pub async fn ensure_group(
        &self,
        name: &str,
        start: From,
        max_lag: Option<MaxLag>,
    ) -> Result<(Group, bool), TailError> {
        match self.group(name).await {
            Err(TailError::UnknownGroup(_)) => {}
            Err(e) => return Err(e),
            Ok(_) => return Ok((self.set_max_lag(name, max_lag).await?, false)),
        }
        let at = self.retained(start).await?;
        let cursor = GroupCursor { max_lag: max_lag.unwrap_or_default(), ..GroupCursor::after(at.seq) };
        let most = self.settings().max_groups;
        let created = GroupChange::Create { cursor, most };
        match self.change_group(name, at, &created).await? {
            GroupOutcome::Exists(_) => Ok((self.set_max_lag(name, max_lag).await?, false)),
            _ if start == From::Earliest => Ok((self.not_behind_the_log(name, at).await?, true)),
            _ => Ok((self.group(name).await?, true)),
        }
    }

    async fn set_max_lag(&self, name: &str, max_lag: Option<MaxLag>) -> Result<Group, TailError> {
        if let Some(max_lag) = max_lag {
            let at = self.cursor_of(SeqNo::ZERO)?;
            self.change_group(name, at, &GroupChange::SetMaxLag(max_lag)).await?;
        }
        self.group(name).await
    }

    /// The log may have been let go between the look at its beginning and the group's. From now on the group holds it.
    async fn not_behind_the_log(&self, name: &str, at: Cursor) -> Result<Group, TailError> {
        let manifest = self.database().load().await.map_err(TailError::Coordination)?.manifest;
        if manifest.lineage == at.lineage && manifest.trimmed_seq > at.seq {
            self.change_group(name, at, &GroupChange::Advance(manifest.trimmed_seq)).await?;
        }
        self.group(name).await
    }

    /// Commits that `group` has consumed everything up to `cursor`. Answered once that, or something later, is stored; many
    /// commits of one group are one write.
    ///
    /// # Errors
    /// [`TailError::UnknownGroup`], also where the group was deleted while it was consumed; [`TailError::WrongCursor`];
    /// [`TailError::Busy`]; [`TailError::Coordination`], and then the commit may be repeated.
    pub async fn commit_group(&self, name: &str, cursor: Cursor) -> Result<Committed, TailError> {
        names::check_group(name).map_err(TailError::InvalidGroup)?;
        let cursor = self.committed(From::Cursor(cursor)).await?;
        let outcome = self.commits().commit(name, cursor).await?;
        let outcome = settled(outcome, name, cursor, self.settings().max_groups)?;
        Ok(committed(&outcome, cursor))
    }

    /// Sets `group` back (or on) to `cursor`, wherever it is.
    ///
    /// # Errors
    /// As [`Tailer::commit_group`]; [`TailError::CursorExpired`] where the log no longer reaches back so far.
    pub async fn rewind_group(&self, name: &str, cursor: Cursor) -> Result<Committed, TailError> {
        let cursor = self.retained(From::Cursor(cursor)).await?;
        let outcome = self.change_group(name, cursor, &GroupChange::Rewind(cursor.seq)).await?;
        Ok(committed(&outcome, cursor))
    }

    /// Ends a group; what only it held of the log goes with the next retention.
    ///
    /// # Errors
    /// [`TailError::UnknownGroup`]; [`TailError::Coordination`].
    pub async fn delete_group(&self, name: &str) -> Result<(), TailError> {
        let at = self.cursor_of(SeqNo::ZERO)?;
        self.change_group(name, at, &GroupChange::Delete).await.map(drop)
    }

    /// A consumer that goes on where the group is, as stored now.
    ///
    /// # Errors
    /// [`TailError::UnknownGroup`]; as [`Tailer::consume`]: [`TailError::CursorExpired`] where the group was left behind.
    pub async fn consume_group(&self, name: &str) -> Result<Consumer, TailError> {
        let group = self.group(name).await?;
        self.consume(From::Cursor(group.cursor)).await
    }

    /// The position at which `start` lies: committed, and of this history.
    async fn committed(&self, start: From) -> Result<Cursor, TailError> {
        let (next, m) = self.resolve(start).await?;
        let cursor = Cursor { database: m.database, lineage: m.lineage, seq: SeqNo(next.0 - 1) };
        if cursor.seq > m.last_seq {
            let why = format!("it lies beyond the head, which is at {}", m.last_seq);
            return Err(TailError::WrongCursor { cursor, lineage: m.lineage, why });
        }
        Ok(cursor)
    }

    /// The same, and still in the log.
    async fn retained(&self, start: From) -> Result<Cursor, TailError> {
        let cursor = self.committed(start).await?;
        let m = self.manifest()?;
        if cursor.seq < m.trimmed_seq {
            let earliest = Cursor { database: m.database, lineage: m.lineage, seq: m.trimmed_seq };
            return Err(TailError::CursorExpired { trimmed: m.trimmed_seq, earliest });
        }
        Ok(cursor)
    }

    fn cursor_of(&self, seq: SeqNo) -> Result<Cursor, TailError> {
        let manifest = self.manifest()?;
        Ok(Cursor { database: manifest.database, lineage: manifest.lineage, seq })
    }

    async fn change_group(
        &self,
        name: &str,
        at: Cursor,
        change: &GroupChange,
    ) -> Result<GroupOutcome, TailError> {
        names::check_group(name).map_err(TailError::InvalidGroup)?;
        let coordination = &self.database().coordination;
        let changed = coordination.change_group(at.lineage, name, change).await;
        settled(changed.map_err(TailError::Coordination)?, name, at, self.settings().max_groups)
    }
}

/// The outcome, where it is none of those that are errors to a client.
fn settled(
    outcome: GroupOutcome,
    name: &str,
    cursor: Cursor,
    most: usize,
) -> Result<GroupOutcome, TailError> {
    match outcome {
        GroupOutcome::Unknown => Err(TailError::UnknownGroup(name.to_owned())),
        GroupOutcome::TooMany => Err(TailError::TooManyGroups(most)),
        GroupOutcome::OtherLineage(lineage) => Err(other_lineage(cursor, lineage)),
        fine => Ok(fine),
    }
}

fn other_lineage(cursor: Cursor, lineage: Lineage) -> TailError {
    let why = format!("it is of lineage {}, the database is of {lineage} now", cursor.lineage);
    TailError::WrongCursor { cursor, lineage, why }
}

fn committed(outcome: &GroupOutcome, cursor: Cursor) -> Committed {
    match outcome {
        GroupOutcome::Ahead(group) => Committed { cursor: Cursor { seq: group.seq, ..cursor }, moved: false },
        GroupOutcome::Stored(group) => Committed { cursor: Cursor { seq: group.seq, ..cursor }, moved: true },
        _ => Committed { cursor, moved: true },
    }
}

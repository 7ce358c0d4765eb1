//! Retention: the oldest tables leave by age.
//!
//! Why nothing older can reappear: what goes is a **prefix in sequence order**. Runs go whole from the oldest on, and of
//! the one above them, whose tables share no key, any table may. So nothing lies beneath what goes, and nothing above it
//! is touched. A run that has lost tables is another run, with another id: a merge that still holds its old shape
//! does not find its input any more, or it would write the lost rows again.
//!
//! Nor does anybody miss what goes: every snapshot lies below all of it, and the history floor rises to its newest number,
//! so that none can be taken later that should see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{RunId, Timestamp, Version};
use crate::manifest::state::{CompactionMode, Manifest, Run, TableEntry};

impl Manifest {
    pub(super) fn expire(
        &mut self,
        version: Version,
        names: &[String],
        planned: &CompactionMode,
        as_of: Timestamp,
    ) -> Result<(), String> {
        if *planned != self.compaction {
            return Err("the compaction mode has changed since the retention was planned".to_owned());
        }
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let gone = self.take_oldest(version, &names)?;
        for table in &gone {
            self.may_go(table, as_of)?;
        }
        self.keep_enough()?;
        let newest = gone.iter().map(|t| t.max_seq).max().unwrap_or_default();
        self.history_floor = self.history_floor.max(newest);
        self.retire(version, gone.iter().map(|t| (t.path(), t.len, t.blobs.as_slice())), &[]);
        Ok(())
    }

    /// Takes the named tables out of the tree, if they are the oldest ones.
    fn take_oldest(
        &mut self,
        version: Version,
        names: &BTreeSet<&str>,
    ) -> Result<Vec<Arc<TableEntry>>, String> {
        let mut gone: Vec<Arc<TableEntry>> = Vec::new();
        while let Some(run) = self.runs.last() {
            let is_named = |t: &Arc<TableEntry>| names.contains(t.name.as_str());
            let (out, stay): (Vec<_>, Vec<_>) = run.tables.iter().cloned().partition(is_named);
            let (some, all, l0) = (!out.is_empty(), stay.is_empty(), run.l0);
            gone.extend(out);
            if some {
                self.runs.pop();
            }
            if !all {
                if some {
                    self.runs.push(Arc::new(Run { id: RunId(version.0), l0, tables: stay }));
                }
                break;
            }
        }
        if gone.is_empty() || gone.len() != names.len() {
            let missing = names.iter().find(|n| !gone.iter().any(|t| t.name == **n)).copied();
            return Err(match missing {
                Some(name) => format!("table {name} is gone, or older tables that stay lie beneath it"),
                None => "a retention that names no table".to_owned(),
            });
        }
        Ok(gone)
    }

    fn may_go(&self, table: &TableEntry, as_of: Timestamp) -> Result<(), String> {
        if self.compaction.over_at(table.max_time).is_none_or(|at| at > as_of) {
            return Err(format!("the retention of table {} has not ended", table.name));
        }
        match self.holder_of(table) {
            Some(snapshot) => Err(format!("snapshot {snapshot:?} sees rows of table {}", table.name)),
            None => Ok(()),
        }
    }

    fn keep_enough(&self) -> Result<(), String> {
        let windows: BTreeSet<i64> = self.tables().map(|t| self.compaction.window(t.max_time)).collect();
        let (tables, windows) = (self.tables().count() as u64, windows.len() as u64);
        if self.compaction.keeps_enough(tables, windows) {
            return Ok(());
        }
        Err(format!("{tables} tables in {windows} windows would be left, fewer than are kept in any case"))
    }
}

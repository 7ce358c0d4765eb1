//! Handles of tables and runs, shared between views.
//!
//! A view names hundreds of tables and there may be fifty views a second, so a new view takes the handles of every run
//! it shares with the one before, and interns the tables of the others by name (a merge may keep a table as it is).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use isle_storage::ids::{RunId, SeqNo};
use isle_storage::manifest::{Manifest, Run, TableEntry};
use isle_storage::names::ObjectPath;

use super::cache::{Cache, Slot};

/// One table with its identity in the cache.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: u64,
    pub(crate) entry: Arc<TableEntry>,
    pub(crate) path: ObjectPath,
    cache: Weak<Cache>,
}

impl Drop for Table {
    /// No view names the table any more: its metadata, which the cache favours, would otherwise outstay its use. Its
    /// blocks are let go as others come.
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.remove(Slot::meta(self.id));
        }
    }
}

/// A run with handles for its tables, in the run's order.
#[derive(Debug)]
pub(crate) struct RunTables {
    pub(crate) run: Arc<Run>,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) min_seq: SeqNo,
}

impl RunTables {
    /// The one table that may hold `key`.
    pub(crate) fn table_for(&self, key: &[u8]) -> Option<&Arc<Table>> {
        let at = self.tables.partition_point(|t| t.entry.largest.as_slice() < key);
        self.tables.get(at).filter(|t| t.entry.smallest.as_slice() <= key)
    }
}

/// Makes handles.
#[derive(Debug)]
pub(crate) struct Catalog {
    cache: Arc<Cache>,
    next_id: u64,
    runs: Arc<[Arc<RunTables>]>,
    tables: HashMap<String, Weak<Table>>,
}

impl Catalog {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        Self { cache, next_id: 0, runs: Arc::new([]), tables: HashMap::new() }
    }

    /// The handles of a manifest's runs, newest first; runs it no longer names are forgotten.
    pub(crate) fn runs(&mut self, manifest: &Manifest) -> Arc<[Arc<RunTables>]> {
        let same = |(known, run): (&Arc<RunTables>, &Arc<Run>)| Arc::ptr_eq(&known.run, run);
        if self.runs.len() == manifest.runs.len() && self.runs.iter().zip(&manifest.runs).all(same) {
            return Arc::clone(&self.runs);
        }
        let known: HashMap<RunId, Arc<RunTables>> =
            self.runs.iter().map(|h| (h.run.id, Arc::clone(h))).collect();
        self.runs = manifest.runs.iter().map(|run| self.run(&known, run)).collect();
        self.tables.retain(|_, t| t.strong_count() > 0);
        Arc::clone(&self.runs)
    }

    fn run(&mut self, known: &HashMap<RunId, Arc<RunTables>>, run: &Arc<Run>) -> Arc<RunTables> {
        if let Some(known) = known.get(&run.id).filter(|k| Arc::ptr_eq(&k.run, run) || k.run == *run) {
            return Arc::clone(known);
        }
        let tables = run.tables.iter().map(|t| self.table(t)).collect();
        Arc::new(RunTables { run: Arc::clone(run), tables, min_seq: run.min_seq() })
    }

    fn table(&mut self, entry: &Arc<TableEntry>) -> Arc<Table> {
        if let Some(known) = self.tables.get(&entry.name).and_then(Weak::upgrade) {
            return known;
        }
        self.next_id += 1;
        let table = Arc::new(Table {
            id: self.next_id,
            entry: Arc::clone(entry),
            path: entry.path(),
            cache: Arc::downgrade(&self.cache),
        });
        self.tables.insert(entry.name.clone(), Arc::downgrade(&table));
        table
    }
}

//! A position in a data block that moves both ways.
//!
//! Forward is the format's own direction: each key takes a prefix of the one before. Backward it is not, so the rows
//! between two restart points are laid out in a window once and then walked from their end: a reverse scan decodes
//! every row twice, not sixteen times.

use bytes::Bytes;

use super::block::{Block, HEAD_LEN};
use super::entry::{self, Fields};
use crate::ids::SeqNo;
use crate::row::RowRef;

/// A position in a block that moves both ways. Owns a cheap clone of the block. A cursor is either on a row or off
/// (before the first or past the last); `row()` is `None` when off: never a stale row.
#[derive(Debug, Clone)]
pub struct BlockCursor {
    block: Block,
    place: Place,
    /// The current row's key, rebuilt; the buffer is kept from row to row.
    key: Vec<u8>,
    window: Window,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Before,
    On(On),
    After,
}

/// The row under the cursor.
#[derive(Debug, Clone, Copy)]
struct On {
    at: usize,
    /// The restart point at or before it.
    restart: usize,
    fields: Fields,
}

/// The keys between two restart points, whole and one after the other.
#[derive(Debug, Clone, Default)]
struct Window {
    /// Which restart point they follow; `None` while nothing is laid out.
    restart: Option<usize>,
    keys: Vec<u8>,
    rows: Vec<WindowRow>,
}

#[derive(Debug, Clone, Copy)]
struct WindowRow {
    at: usize,
    key: (usize, usize),
}

impl BlockCursor {
    pub(super) fn new(block: Block) -> Self {
        Self { block, place: Place::Before, key: Vec::new(), window: Window::default() }
    }

    /// The row under the cursor.
    #[must_use]
    #[inline]
    pub fn row(&self) -> Option<RowRef<'_>> {
        self.on().and_then(|on| on.fields.row(self.block.entries(), &self.key))
    }

    /// The key of the row under the cursor.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.on().map(|_| self.key.as_slice())
    }

    /// The sequence number of the row under the cursor.
    #[must_use]
    #[inline]
    pub fn seq(&self) -> Option<SeqNo> {
        self.on().map(|on| on.fields.seq)
    }

    /// The value of the row under the cursor as a slice of the block, not copied; `None` where the row is not a put.
    #[must_use]
    pub fn shared_value(&self) -> Option<Bytes> {
        self.on().and_then(|on| on.fields.put_range()).map(|range| self.block.slice(range))
    }

    /// Whether the cursor is on a row.
    #[must_use]
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on().is_some()
    }

    /// Moves to the first row.
    pub fn first(&mut self) {
        self.step_to(HEAD_LEN, 0);
    }

    /// Moves to the last row.
    pub fn last(&mut self) {
        let restart = self.block.restarts() - 1;
        self.lay_out(restart);
        self.place_in_window(self.window.rows.len().checked_sub(1));
    }

    /// Moves to the first row with a key at or above `key`.
    pub fn seek(&mut self, key: &[u8]) {
        let below = self.block.restarts_where(|part| part.suffix < key);
        let Some(restart) = below.checked_sub(1) else {
            return self.first();
        };
        self.lay_out(restart);
        let i = self.window.count_below(key);
        if i < self.window.rows.len() {
            return self.place_in_window(Some(i));
        }
        match self.block.restart(below) {
            Some(at) => self.step_to(at, below),
            None => self.place = Place::After,
        }
    }

    /// Moves to the last row with a key below `key`.
    pub fn seek_before(&mut self, key: &[u8]) {
        let below = self.block.restarts_where(|part| part.suffix < key);
        let Some(restart) = below.checked_sub(1) else {
            self.place = Place::Before;
            return;
        };
        self.lay_out(restart);
        self.place_in_window(self.window.count_below(key).checked_sub(1));
    }

    /// Moves one row on (key ascending, seq descending). From before the first row: to the first.
    #[inline]
    pub fn next(&mut self) {
        match self.place {
            Place::Before => self.first(),
            Place::On(on) => {
                let next_restart = on.restart + 1;
                let restarts_there = self.block.restart(next_restart) == Some(on.fields.next);
                self.step_to(on.fields.next, if restarts_there { next_restart } else { on.restart });
            }
            Place::After => {}
        }
    }

    /// Moves one row back. From past the last row: to the last.
    pub fn prev(&mut self) {
        match self.place {
            Place::Before => {}
            Place::On(on) if self.block.restart(on.restart) == Some(on.at) => match on.restart.checked_sub(1)
            {
                Some(restart) => {
                    self.lay_out(restart);
                    self.place_in_window(self.window.rows.len().checked_sub(1));
                }
                None => self.place = Place::Before,
            },
            Place::On(on) => {
                self.lay_out(on.restart);
                let i = self.window.rows.partition_point(|row| row.at < on.at);
                self.place_in_window(i.checked_sub(1));
            }
            Place::After => self.last(),
        }
    }

    #[inline]
    fn on(&self) -> Option<&On> {
        match &self.place {
            Place::On(on) => Some(on),
            Place::Before | Place::After => None,
        }
    }

    /// Moves to the entry at `at`, whose key continues the one in `self.key` (or takes nothing from it).
    #[inline]
    fn step_to(&mut self, at: usize, restart: usize) {
        let entries = self.block.entries();
        let part = if at < entries.len() { entry::key_at(entries, at) } else { None };
        let row = part.and_then(|part| Some((part, entry::fields_of(entries, &part, self.block.base())?)));
        let Some((part, fields)) = row else {
            self.place = Place::After;
            return;
        };
        self.key.truncate(part.shared);
        self.key.extend_from_slice(part.suffix);
        self.place = Place::On(On { at, restart, fields });
    }

    /// Fills the window with the rows from restart point `restart` to the next.
    fn lay_out(&mut self, restart: usize) {
        if self.window.restart == Some(restart) {
            return;
        }
        self.window.clear();
        let Some(mut at) = self.block.restart(restart) else { return };
        let entries = self.block.entries();
        let end = self.block.restart(restart + 1).unwrap_or(entries.len());
        while at < end {
            let Some(part) = entry::key_at(entries, at) else { break };
            let Some(fields) = entry::fields_of(entries, &part, self.block.base()) else { break };
            self.window.push(at, &part);
            at = fields.next;
        }
        self.window.restart = Some(restart);
    }

    /// Moves to row `i` of the window; before the first row where there is none.
    fn place_in_window(&mut self, i: Option<usize>) {
        let found = i.and_then(|i| self.window.rows.get(i)).copied();
        let Some((row, restart)) = found.zip(self.window.restart) else {
            self.place = Place::Before;
            return;
        };
        let entries = self.block.entries();
        let fields = entry::key_at(entries, row.at)
            .and_then(|part| entry::fields_of(entries, &part, self.block.base()));
        self.key.clear();
        self.key.extend_from_slice(self.window.key(row));
        self.place = fields.map_or(Place::After, |fields| Place::On(On { at: row.at, restart, fields }));
    }
}

impl Window {
    fn clear(&mut self) {
        self.restart = None;
        self.keys.clear();
        self.rows.clear();
    }

    fn push(&mut self, at: usize, part: &entry::EntryKey<'_>) {
        let start = self.keys.len();
        if let Some(before) = self.rows.last().map(|row| row.key.0) {
            self.keys.extend_from_within(before..before + part.shared);
        }
        self.keys.extend_from_slice(part.suffix);
        self.rows.push(WindowRow { at, key: (start, self.keys.len()) });
    }

    fn key(&self, row: WindowRow) -> &[u8] {
        &self.keys[row.key.0..row.key.1]
    }

    /// Number of rows whose key is below `key`.
    fn count_below(&self, key: &[u8]) -> usize {
        self.rows.partition_point(|row| self.key(*row) < key)
    }
}

//! Manifests that are not served yet, because their segments are still on their way.

use std::collections::VecDeque;
use std::sync::Arc;

use isle_storage::ids::Version;
use isle_storage::manifest::Manifest;
use tokio::time::Instant;

/// Targets kept; beyond it the newest replaces the one before it, which then is never served by itself.
const MOST: usize = 64;

/// A manifest to be served.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) manifest: Arc<Manifest>,
    /// Known to be the newest as of then.
    pub(super) as_of: Instant,
}

/// Ascending by version.
#[derive(Debug, Default)]
pub(super) struct Targets(VecDeque<Target>);

impl Targets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn newest_version(&self) -> Option<Version> {
        self.0.back().map(|t| t.manifest.version)
    }

    pub(super) fn push(&mut self, target: Target) {
        if self.0.len() >= MOST {
            self.0.pop_back();
        }
        self.0.push_back(target);
    }

    /// The newest target, which alone stays.
    pub(super) fn keep_newest(&mut self) -> Option<&Target> {
        let surplus = self.0.len().saturating_sub(1);
        self.0.drain(..surplus);
        self.0.back()
    }

    /// Notes that `version` is still the newest.
    pub(super) fn confirm(&mut self, version: Version, as_of: Instant) {
        if let Some(newest) = self.0.back_mut().filter(|t| t.manifest.version == version) {
            newest.as_of = newest.as_of.max(as_of);
        }
    }

    /// Takes the newest target that is `covered`; the older ones go with it, and so do those before it that are
    /// `past` being served.
    pub(super) fn take_newest(
        &mut self,
        covered: impl Fn(&Manifest) -> bool,
        past: impl Fn(&Manifest) -> bool,
    ) -> Option<Target> {
        let at = self.0.iter().rposition(|t| covered(&t.manifest));
        if let Some(at) = at {
            self.0.drain(..at);
            return self.0.pop_front();
        }
        while self.0.len() > 1 && self.0.front().is_some_and(|t| past(&t.manifest)) {
            self.0.pop_front();
        }
        None
    }
}

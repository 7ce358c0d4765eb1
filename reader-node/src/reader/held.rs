//! Views kept for the next pages of scans.
//!
//! A view that handed out a page token is kept for a while, so that the next page continues from it. A few dozen at
//! most are kept: what a kept view costs is the generations that newer views have let go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::{Lineage, Version};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pins::Pinned;
use crate::settings::ReaderSettings;
use crate::view::View;

/// A view kept, since when, and the pin that its last scan had.
type Held = (Arc<View>, Instant, Option<Arc<Pinned>>);

/// The views kept, oldest use first.
#[derive(Debug)]
pub(crate) struct HeldViews {
    views: Mutex<VecDeque<Held>>,
    most: usize,
    longest: Duration,
}

impl HeldViews {
    pub(super) fn new(settings: &ReaderSettings) -> Self {
        Self {
            views: Mutex::default(),
            most: settings.held_views,
            longest: Duration::from_millis(settings.held_view_age_ms),
        }
    }

    /// Keeps `view` for a next page; at the limit the one used longest ago goes.
    pub(crate) fn hold(&self, view: &Arc<View>, pinned: Option<Arc<Pinned>>) {
        let mut views = self.views.lock();
        views.retain(|(held, ..)| !Arc::ptr_eq(held, view));
        views.push_back((Arc::clone(view), Instant::now(), pinned));
        while views.len() > self.most {
            views.pop_front();
        }
        self.let_go(&mut views);
    }

    /// The view of that version, if it is still kept.
    pub(super) fn find(&self, lineage: Lineage, version: Version) -> Option<Arc<View>> {
        let mut views = self.views.lock();
        self.let_go(&mut views);
        let found = views.iter().find(|(v, ..)| v.version() == version && v.lineage() == lineage);
        found.map(|(view, ..)| Arc::clone(view))
    }

    /// Lets go of what was not used for long enough.
    pub(crate) fn sweep(&self) {
        self.let_go(&mut self.views.lock());
    }

    fn let_go(&self, views: &mut VecDeque<Held>) {
        while views.front().is_some_and(|(_, used, _)| used.elapsed() > self.longest) {
            views.pop_front();
        }
    }
}

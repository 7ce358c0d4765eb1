//! Choosing what a read sees.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::{SeqNo, Version};
use isle_storage::manifest::Manifest;
use tokio::time::Instant;

use super::{RELOAD_WAIT, Reader};
use crate::error::ReadError;
use crate::options::{MinSeq, ReadOptions, ScanRequest};
use crate::page::PageToken;
use crate::view::{ReadPoint, View};

/// Pause before the head is asked again that could not be read.
const ASK_AGAIN: Duration = Duration::from_millis(250);

impl Reader {
    /// The newest view at this instant.
    pub(super) fn newest(&self) -> Result<ReadPoint, ReadError> {
        let inner = &self.inner;
        let view = inner.shared.view().ok_or_else(|| self.not_ready())?;
        Ok(ReadPoint::newest(view, inner.db.env.clock.now()))
    }

    /// What a read with these options sees: waits for `min_seq`, then looks up the snapshot.
    pub(super) async fn point(&self, options: &ReadOptions) -> Result<ReadPoint, ReadError> {
        if let Some(name) = &options.snapshot {
            return self.snapshot_point(name, options).await;
        }
        let view = match options.min_seq {
            Some(wanted) => self.view_with(wanted, options).await?,
            None => self.inner.shared.view().ok_or_else(|| self.not_ready())?,
        };
        self.point_in(view, options)
    }

    fn point_in(&self, view: Arc<View>, options: &ReadOptions) -> Result<ReadPoint, ReadError> {
        match &options.snapshot {
            Some(name) => ReadPoint::snapshot(view, name),
            None => Ok(ReadPoint::newest(view, self.inner.db.env.clock.now())),
        }
    }

    /// What the snapshot holds. A view that does not know it may only lag behind, and when it will have caught up no
    /// event tells; so the head is asked. Whoever has been told that a snapshot was taken finds it here, whatever its
    /// number is, and who asks for one that does not exist is told so without waiting.
    async fn snapshot_point(&self, name: &str, options: &ReadOptions) -> Result<ReadPoint, ReadError> {
        let patience = self.inner.settings.wait(options.wait);
        let (came, deadline) = (Instant::now(), Instant::now() + patience);
        if let Some(wanted) = options.min_seq {
            self.view_with(wanted, options).await?;
        }
        let mut views = self.inner.shared.subscribe();
        let mut head: Option<Arc<Manifest>> = None;
        loop {
            let view = views.borrow_and_update().clone().ok_or_else(|| self.not_ready())?;
            let unknown = match ReadPoint::snapshot(Arc::clone(&view), name) {
                Ok(point) => return Ok(point),
                Err(unknown) => unknown,
            };
            if head.is_none() {
                head = self.head_after(came, deadline).await;
            }
            let pause = match &head {
                Some(m) if !m.snapshots.contains_key(name) => return Err(unknown),
                Some(m) if m.lineage != view.lineage() || m.version <= view.version() => return Err(unknown),
                Some(_) => deadline,
                None => deadline.min(Instant::now() + ASK_AGAIN),
            };
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => return Err(ReadError::Closed),
                changed = views.changed() => changed.map_err(|_| ReadError::Closed)?,
                () = tokio::time::sleep_until(pause) => {}
            }
            if Instant::now() >= deadline {
                let wanted = format!("snapshot {name:?}");
                return Err(ReadError::ViewBehind { wanted, seq: view.seq(), waited: patience });
            }
        }
    }

    /// The head's manifest, read after `came`; `None` where it cannot be read at present. One read at a time, and
    /// whoever has waited for it shares it.
    async fn head_after(&self, came: Instant, deadline: Instant) -> Option<Arc<Manifest>> {
        let mut last = tokio::time::timeout_at(deadline, self.inner.looked_up.lock()).await.ok()?;
        if let Some((began, manifest)) = last.as_ref().filter(|(began, _)| *began > came) {
            tracing::trace!(?began, "another read has looked up the head");
            return Some(Arc::clone(manifest));
        }
        let began = Instant::now();
        match tokio::time::timeout_at(deadline, self.inner.db.load()).await.ok()? {
            Ok(loaded) => {
                *last = Some((began, Arc::clone(&loaded.manifest)));
                Some(loaded.manifest)
            }
            Err(error) => {
                tracing::debug!(%error, "the head cannot be asked for a snapshot");
                None
            }
        }
    }

    /// Waits until a view holds `wanted`. Every view that is published meanwhile is judged by itself, so a load that
    /// began before this call and ends after it counts only if it is new enough.
    async fn view_with(&self, wanted: MinSeq, options: &ReadOptions) -> Result<Arc<View>, ReadError> {
        let patience = self.inner.settings.wait(options.wait);
        let deadline = Instant::now() + patience;
        let mut views = self.inner.shared.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            if let Some(view) = &view
                && view.reaches(wanted)?
            {
                return Ok(Arc::clone(view));
            }
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => return Err(ReadError::Closed),
                changed = views.changed() => changed.map_err(|_| ReadError::Closed)?,
                () = tokio::time::sleep_until(deadline) => {
                    let Some(view) = view else { return Err(self.not_ready()) };
                    let wanted = match wanted {
                        MinSeq::Seq(seq) => seq.to_string(),
                        MinSeq::Position(position) => position.to_string(),
                    };
                    return Err(ReadError::ViewBehind { wanted, seq: view.seq(), waited: patience });
                }
            }
        }
    }

    /// A newer point after `object`, which the old one names, was found to be gone.
    pub(crate) async fn reload(
        &self,
        old: &ReadPoint,
        object: String,
        options: &ReadOptions,
    ) -> Result<ReadPoint, ReadError> {
        let mut views = self.inner.shared.subscribe();
        let is_newer = |view: &Option<Arc<View>>| view.as_ref().is_some_and(|v| is_newer(v, &old.view));
        let found = tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => return Err(ReadError::Closed),
            found = tokio::time::timeout(RELOAD_WAIT, views.wait_for(is_newer)) => found,
        };
        match found {
            Ok(Ok(view)) => match view.clone() {
                Some(view) => self.point_in(view, options),
                None => Err(ReadError::ViewExpired { object }),
            },
            _ => Err(ReadError::ViewExpired { object }),
        }
    }

    /// What a scan sees: for a page the view it began in, if that is still held here.
    pub(super) async fn scan_point(&self, request: &ScanRequest) -> Result<ReadPoint, ReadError> {
        let Some(page) = &request.page else { return self.point(&request.options).await };
        let current = self.inner.shared.view().ok_or_else(|| self.not_ready())?;
        page.verify(current.lineage(), request.reverse)?;
        if let Some(name) = &request.options.snapshot {
            let point = self.point(&request.options).await?;
            let same = (point.max_seq, point.now) == (page.seq, page.instant);
            return if same { Ok(point) } else { Err(ReadError::SnapshotChanged(name.clone())) };
        }
        if let Some(point) = self.page_point(page, &current, request)? {
            return Ok(point);
        }
        if request.consistent {
            return Err(ReadError::PageExpired);
        }
        self.point(&request.options).await
    }

    fn page_point(
        &self,
        page: &PageToken,
        current: &Arc<View>,
        request: &ScanRequest,
    ) -> Result<Option<ReadPoint>, ReadError> {
        let view = if current.version() == page.version {
            Some(Arc::clone(current))
        } else {
            self.inner.held.find(current.lineage(), page.version)
        };
        let Some(view) = view.filter(|v| v.seq() == page.seq) else { return Ok(None) };
        if let Some(wanted) = request.options.min_seq
            && !view.reaches(wanted)?
        {
            return Ok(None);
        }
        Ok(Some(ReadPoint { view, max_seq: page.seq, now: page.instant }))
    }

    fn not_ready(&self) -> ReadError {
        let reasons = self.inner.shared.troubles().join("; ");
        let why = if reasons.is_empty() { "the first load is under way".to_owned() } else { reasons };
        ReadError::NotReady(why)
    }
}

fn is_newer(view: &View, old: &View) -> bool {
    let key = |v: &View| -> (Version, SeqNo) { (v.version(), v.seq()) };
    view.lineage() != old.lineage() || key(view) > key(old)
}

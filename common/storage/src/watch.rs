//! A value with its newest state watched by any number of receivers: tokio's `watch` by name and meaning, with one
//! difference. Receivers that wait are woken in the order in which they began to wait.
//!
//! **Why not tokio's.** It spreads those who wait over eight lists, at random, so that many threads do not meet on one
//! lock. Which of two loops of one role then runs first is a throw of dice that no seed reaches, and a simulation that
//! is to repeat a run byte for byte must reach all of them. The engines have a handful of receivers, not thousands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Notify;

/// Every sender has gone, and there is no change that was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody will change the value any more")]
pub struct Closed;

/// A channel that holds `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

#[derive(Debug)]
struct Shared<T> {
    cell: RwLock<Cell<T>>,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// Told when the last receiver has gone.
    unheard: Notify,
}

#[derive(Debug)]
struct Cell<T> {
    value: T,
    /// Counts changes.
    version: u64,
}

/// A look at the value; nothing can change it meanwhile, so it is not kept.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, Cell<T>>);

impl<T> std::ops::Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Changes the value.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// A channel that holds `value`, with no receiver yet.
    pub fn new(value: T) -> Self {
        let cell = RwLock::new(Cell { value, version: 0 });
        let (senders, receivers) = (AtomicUsize::new(1), AtomicUsize::new(0));
        let (changed, unheard) = (Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { cell, changed, senders, receivers, unheard }) }
    }

    /// A receiver that has seen the present value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.cell.read().version;
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { shared: Arc::clone(&self.shared), seen }
    }

    /// The present value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.cell.read())
    }

    /// Puts `value` in the place of the present one, which it returns.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|present| std::mem::swap(present, &mut value));
        value
    }

    /// Changes the value and wakes whoever waits.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value, and wakes whoever waits if `change` says that it has.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut cell: RwLockWriteGuard<'_, Cell<T>> = self.shared.cell.write();
        let modified = change(&mut cell.value);
        cell.version += u64::from(modified);
        drop(cell);
        if modified {
            self.shared.changed.notify_waiters();
        }
        modified
    }

    /// Whether there is no receiver.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.receivers.load(Ordering::Acquire) == 0
    }

    /// Resolves when there is no receiver.
    pub async fn closed(&self) {
        loop {
            // Made before looking: whoever goes in between is not missed.
            let unheard = self.shared.unheard.notified();
            if self.is_closed() {
                return;
            }
            unheard.await;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.changed.notify_waiters();
        }
    }
}

/// Sees the value, and is told of changes.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// The present value; whether it was seen before is not noted.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.cell.read())
    }

    /// The present value, which counts as seen from here on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let cell = self.shared.cell.read();
        self.seen = cell.version;
        Ref(cell)
    }

    /// Resolves when there is a value that was not seen, and counts it as seen.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Made before looking: a change in between is not missed.
            let changed = self.shared.changed.notified();
            let closed = self.shared.senders.load(Ordering::Acquire) == 0;
            let version = self.shared.cell.read().version;
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }

    /// Resolves with the value when it is as `wanted`, at once if it is already, and counts it as seen.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let changed = self.shared.changed.notified();
            let closed = self.shared.senders.load(Ordering::Acquire) == 0;
            {
                let cell = self.shared.cell.read();
                self.seen = cell.version;
                if wanted(&cell.value) {
                    return Ok(Ref(cell));
                }
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.shared.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.unheard.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_after_it() {
        let (sender, mut receiver) = channel(1);
        let mut late = receiver.clone();
        sender.send_replace(2);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow(), 2);
        assert!(!sender.send_if_modified(|_| false));
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!((late.changed().await, late.changed().await), (Ok(()), Err(Closed)));
        assert!(late.wait_for(|v| *v == 2).await.is_ok());
        assert!(late.wait_for(|v| *v == 3).await.is_err());
    }

    #[tokio::test]
    async fn who_waits_is_woken_in_order() {
        let sender = Sender::new(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = (0..32).map(|i| {
            let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
            tokio::spawn(async move {
                receiver.changed().await.unwrap();
                order.lock().push(i);
            })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await;
        sender.send_modify(|v| *v += 1);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..32).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_sender_learns_that_nobody_listens() {
        let (sender, receiver) = channel(());
        let second = receiver.clone();
        let closed = tokio::spawn({
            let sender = sender.clone();
            async move { sender.closed().await }
        });
        drop(receiver);
        tokio::task::yield_now().await;
        assert!(!closed.is_finished() && !sender.is_closed());
        drop(second);
        closed.await.unwrap();
        assert!(sender.is_closed());
    }
}

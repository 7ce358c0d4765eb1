//! What a program says of itself at `/readyz`.
//!
//! A program is made of named components (`start`, `store`, `coordination`, `lease`, …), each in order, degraded or not
//! ready. Degraded still serves: readers and tailers answer from their last view while etcd or the bucket is away, and say
//! so. One component that is not ready makes the whole program not ready.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Map, Value, json};

/// State of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In order.
    Ok,
    /// Impaired, but serving.
    Degraded(String),
    /// Not serving.
    NotReady(String),
}

impl State {
    /// [`State::Degraded`].
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self::Degraded(reason.into())
    }

    /// [`State::NotReady`].
    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self::NotReady(reason.into())
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Degraded(reason) | Self::NotReady(reason) => Some(reason),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded(_) => "degraded",
            Self::NotReady(_) => "not_ready",
        }
    }
}

type Details = Arc<dyn Fn() -> Value + Send + Sync>;

#[derive(Default)]
struct Inner {
    components: BTreeMap<String, State>,
    details: Option<Details>,
}

/// Whether two states are one but for the numbers in their reasons.
fn is_same(a: &State, b: &State) -> bool {
    let words =
        |state: &State| state.reason().map(|r| r.replace(|c: char| c.is_ascii_digit() || c == '.', ""));
    a.name() == b.name() && words(a) == words(b)
}

/// Shared handle to a program's health.
#[derive(Clone)]
pub struct Health {
    role: &'static str,
    inner: Arc<RwLock<Inner>>,
}

impl Health {
    /// The health of a program of this role, with nothing wrong yet.
    #[must_use]
    pub fn new(role: &'static str) -> Self {
        Self { role, inner: Arc::default() }
    }

    /// Sets a component's state; a change is logged, unless nothing but numbers in the reason have changed: for how long
    /// something has been away is no news.
    pub fn set(&self, component: &str, state: State) {
        let mut inner = self.inner.write();
        let before = inner.components.insert(component.to_owned(), state.clone());
        drop(inner);
        if before.as_ref().is_some_and(|before| is_same(before, &state)) {
            return;
        }
        match &state {
            State::Ok if before.is_none() => {}
            // What has just begun is not in trouble yet.
            State::NotReady(reason) if before.is_none() => {
                tracing::info!(role = self.role, component, reason, "not ready yet");
            }
            State::Ok => tracing::info!(role = self.role, component, "in order again"),
            State::Degraded(reason) => tracing::warn!(role = self.role, component, reason, "degraded"),
            State::NotReady(reason) => tracing::warn!(role = self.role, component, reason, "not ready"),
        }
    }

    /// Says that a component is not ready, as everybody expects: nothing is logged.
    pub fn begin(&self, component: &str, reason: &str) {
        self.inner.write().components.insert(component.to_owned(), State::not_ready(reason));
    }

    /// Forgets a component.
    pub fn clear(&self, component: &str) {
        self.inner.write().components.remove(component);
    }

    /// Sets what `/readyz?verbose` adds: the members of the object that `details` returns, which must not block.
    pub fn set_details(&self, details: impl Fn() -> Value + Send + Sync + 'static) {
        self.inner.write().details = Some(Arc::new(details));
    }

    /// Whether every component serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.inner.read().components.values().any(|s| matches!(s, State::NotReady(_)))
    }

    /// `component: reason` of everything that is not in order, what is not ready first.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let inner = self.inner.read();
        let of = |wanted: fn(&State) -> bool| {
            inner
                .components
                .iter()
                .filter(move |(_, s)| wanted(s))
                .filter_map(|(name, s)| s.reason().map(|r| format!("{name}: {r}")))
        };
        of(|s| matches!(s, State::NotReady(_))).chain(of(|s| matches!(s, State::Degraded(_)))).collect()
    }

    /// The JSON of `/readyz?verbose`.
    #[must_use]
    pub fn verbose(&self) -> Value {
        let details = self.inner.read().details.clone();
        let mut object = match details.map(|d| d()) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        object.entry("role").or_insert_with(|| self.role.into());
        object.insert("ready".into(), self.is_ready().into());
        object.insert("reasons".into(), self.reasons().into());
        let components: Map<String, Value> = self
            .inner
            .read()
            .components
            .iter()
            .map(|(name, s)| (name.clone(), json!({"state": s.name(), "reason": s.reason()})))
            .collect();
        object.insert("components".into(), components.into());
        Value::Object(object)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("role", &self.role).field("reasons", &self.reasons()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_serves_and_not_ready_does_not() {
        let health = Health::new("reader");
        assert!(health.is_ready());
        health.set("coordination", State::degraded("etcd is away"));
        assert!(health.is_ready());
        health.set("start", State::not_ready("opening"));
        assert!(!health.is_ready());
        assert_eq!(health.reasons(), ["start: opening", "coordination: etcd is away"]);
        health.clear("start");
        assert!(health.is_ready());
    }

    #[test]
    fn only_a_change_of_words_is_news() {
        let away = |s: &str| State::degraded(format!("etcd has not answered for {s} s"));
        assert!(is_same(&away("2.5"), &away("11")));
        assert!(!is_same(&away("2.5"), &State::degraded("etcd is full")));
        assert!(
            !is_same(&away("2.5"), &State::not_ready("etcd has not answered for 2.5 s"))
                && !is_same(&away("1"), &State::Ok)
        );
    }

    #[test]
    fn verbose_holds_components_and_details() {
        let health = Health::new("reader");
        health.set("store", State::Ok);
        health.set_details(|| json!({"view_version": 7, "role": "standby"}));
        let json = health.verbose();
        assert_eq!(json["ready"], true);
        assert_eq!(json["role"], "standby", "a role may say it more exactly");
        assert_eq!(json["view_version"], 7);
        assert_eq!(json["components"]["store"]["state"], "ok");
    }
}

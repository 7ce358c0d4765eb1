//! Whether the reader serves, and how well.

use std::time::Duration;

/// The reader's state as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether there is a view to read from.
    pub serving: bool,
    /// Why the view is behind, old or missing; empty where all is well.
    pub reasons: Vec<String>,
    /// How long ago the view was known to be the newest.
    pub view_age: Option<Duration>,
}

impl Health {
    /// Judges: `age` of the view (`None`: there is none) against `max_age`, and what is in its way.
    pub(crate) fn judge(age: Option<Duration>, max_age: Duration, mut troubles: Vec<String>) -> Self {
        match age {
            None => troubles.insert(0, "no view has been loaded yet".to_owned()),
            Some(age) if age > max_age => {
                troubles.insert(0, format!("the view is {:.1} s old", age.as_secs_f64()));
            }
            Some(_) => {}
        }
        Self { serving: age.is_some(), reasons: troubles, view_age: age }
    }

    /// Whether reads are answered from a view that is as fresh as promised.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.serving && self.reasons.is_empty()
    }
}

//! From `main` to the exit code.
//!
//! ```text
//! arguments -> settings -> logs -> listener -> routes over an empty slot -> open the engine, again and again while the
//! failure is passing -> fill the slot -> wait for a signal -> drain -> exit
//! ```
//!
//! A program implements [`Program`] and its `main` calls [`run`]. `isle up`, which hosts several roles in one process with
//! engines it opens itself, uses the parts: [`Settings`], [`crate::server::serve`], [`crate::slot::Slot`],
//! [`crate::health::Health`] and [`Signals`].
//!
//! | end | exit code |
//! | --- | --- |
//! | drained after a signal | 0 |
//! | port in use, credentials refused | 1 |
//! | second signal | 1, at once |
//! | bad flag or setting, wrong backend or database, missing conditional put | 2 |

mod open;
mod program;
mod run;
mod signals;

pub use open::{OpenError, Refusal, open_until_done};
pub use program::{FaceParts, NoArgs, OpenParts, Program};
pub use run::{run, run_until};
pub use signals::Signals;

/// Exit code of a bad flag or setting, and of a definite refusal by what a setting names.
pub const EXIT_SETTINGS: u8 = 2;
/// Exit code of any other failure.
pub const EXIT_FAILURE: u8 = 1;

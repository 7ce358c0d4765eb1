//! Isle's tailer: streams committed mutations, in order, to any number of consumers.

pub mod bootstrap;
pub mod cursor;
pub mod error;
pub mod fetch;
pub mod groups;
pub mod metrics;
#[cfg(feature = "server")]
pub mod server;
pub mod settings;
pub mod tailer;

pub use bootstrap::{Bootstrap, BootstrapRequest, Copied};
pub use cursor::{Cursor, From, InvalidCursor};
pub use error::TailError;
pub use groups::{Committed, Group};
pub use settings::TailerSettings;
pub use tailer::{Consumer, Delivery, Tailer, TailerStatus};

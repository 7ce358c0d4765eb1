//! x
pub mod plan;
pub mod settings;

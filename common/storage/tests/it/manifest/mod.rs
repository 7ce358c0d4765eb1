//! The manifest: its steps, its rules, its judgements and its two stored forms.

pub(crate) mod build;
mod checkpoint;
mod expiry_rules;
mod flush_rules;
mod grow;
mod judgement;
mod log_rules;
mod other_rules;
mod parts_rules;
mod properties;
mod retention_rules;
mod scripts;
mod tree_rules;

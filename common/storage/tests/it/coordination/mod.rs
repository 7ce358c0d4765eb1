//! Coordination: the contract on every form that needs no server, and what only one of the forms can show.

mod bucket_cost;
mod bucket_jobs;
mod bucket_names;
mod bucket_pins;
mod contract;
mod histories;
mod recover_rules;
mod services;
mod set_back;
mod settings;

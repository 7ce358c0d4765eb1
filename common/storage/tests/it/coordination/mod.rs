//! Coordination: the contract on every form that needs no server, and what only one of the forms can show.

mod contract;
mod services;

//! The simulation's tests: schedules, determinism, pinned seeds, broken variants.

mod determinism;
mod sabotage;
mod schedules;

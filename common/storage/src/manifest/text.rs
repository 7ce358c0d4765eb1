//! The manifest's text form: one fact a line, printed for people and tests, and parsed back.

//! A correct model's histories pass; one change to them is found.

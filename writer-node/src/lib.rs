//! Isle's writer: takes mutations, groups them into log segments, commits, flushes tables

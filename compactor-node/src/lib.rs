//! Isle's compactor: merges tables, writes checkpoints, deletes what nothing needs

//! Isle's tailer: streams mutations in order to many consumers

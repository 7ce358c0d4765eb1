//! Isle's reader: point gets, multi-gets and scans at a consistent view

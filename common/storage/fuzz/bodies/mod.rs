//! What must hold for any bytes, one function per decoder: the fuzz targets call them, and so does a plain test over
//! the corpus and its mutations.

pub mod blob;
pub mod format;
pub mod log;
pub mod manifest;
pub mod tables;

/// One target: bytes in; it panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name, which is its corpus folder's too.
pub const TARGETS: &[(&str, Target)] = &[
    ("sealed_block", format::sealed_block),
    ("sections", format::sections),
    ("log_object", log::object),
    ("log_block", log::block),
    ("log_index", log::index),
    ("checkpoint", manifest::checkpoint),
    ("edit", manifest::edit),
    ("manifest_text", manifest::text),
    ("table_block", tables::block),
    ("table_meta", tables::table_meta),
    ("blob_file", blob::file),
];

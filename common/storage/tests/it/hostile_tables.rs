//! The fuzzers' bodies over a corpus that needs no fuzzer: real tables, mutated.

use isle_storage::format::{self, Compression, Sections};
use isle_storage::sst::{FOOTER_LEN, TableOptions};
use proptest::prelude::*;

use crate::fuzz::bodies::tables as bodies;
use crate::rows::{Opened, any_rows, build};

/// What becomes of a byte.
fn any_mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 0..4)
}

fn mutate(mut bytes: Vec<u8>, mutations: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (index, kind, byte) in mutations {
        if bytes.is_empty() {
            break;
        }
        let at = index.index(bytes.len());
        match kind {
            0 => bytes[at] = *byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, *byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// The raw bytes of a table's first block.
fn raw_block(table: &Opened) -> Vec<u8> {
    let range = table.meta.block_range(0);
    format::open("block", &table.object.slice(..range.end as usize)).unwrap().to_vec()
}

/// A table's metadata in the form that the body takes it.
fn meta_parts(object: &[u8], meta_offset: u64) -> [Vec<u8>; 3] {
    let sections = &object[meta_offset as usize..object.len() - FOOTER_LEN];
    let sections = Sections::parse("metadata", sections, &[0x8002, 0x8003]).unwrap();
    [1, 0x8002, 0x8003].map(|tag| sections.get(tag).map_or(Vec::new(), |s| s[..s.len() - 4].to_vec()))
}

fn joined(meta_offset: u64, [filter, index, properties]: &[Vec<u8>; 3]) -> Vec<u8> {
    let mut data = vec![0];
    data.extend_from_slice(&(meta_offset as u32).to_le_bytes()[..3]);
    data.extend_from_slice(&(filter.len() as u16).to_le_bytes());
    data.extend_from_slice(&(index.len() as u16).to_le_bytes());
    [&data[..], filter, index, properties].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_block_is_refused_or_sound(rows in any_rows(70), mutations in any_mutations()) {
        let options = TableOptions { block_bytes: 1 << 20, compression: Compression::None };
        bodies::block(&mutate(raw_block(&Opened::of(&rows, options)), &mutations));
    }

    #[test]
    fn mutated_metadata_is_refused_or_sound(rows in any_rows(70), part in 0usize..3, mutations in any_mutations()) {
        let table = build(&rows, TableOptions { block_bytes: 100, compression: Compression::None });
        let offset = table.entry.meta_offset;
        let mut parts = meta_parts(&table.body.to_bytes(), offset);
        parts[part] = mutate(std::mem::take(&mut parts[part]), &mutations);
        bodies::table_meta(&joined(offset, &parts));
    }

    #[test]
    fn any_bytes_are_refused_or_sound(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        bodies::block(&data);
        bodies::table_meta(&data);
    }
}

/// The mutations above start from what is accepted: so that the bodies' promises are really tried.
#[test]
fn unharmed_parts_are_accepted_by_the_bodies_way_of_joining_them() {
    let rows = crate::golden_tables::golden_rows();
    let table = build(&rows, TableOptions { block_bytes: 100, compression: Compression::None });
    let parts = meta_parts(&table.body.to_bytes(), table.entry.meta_offset);
    assert!(parts.iter().all(|p| !p.is_empty()));
    assert!(bodies::joined(&joined(table.entry.meta_offset, &parts)).is_some());
}

/// Seeds of a fuzz target: the golden rows in several shapes.
pub(crate) fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let rows = crate::golden_tables::golden_rows();
    let of = |count: usize| {
        let rows = &rows[..count];
        let options = TableOptions { block_bytes: 300, compression: Compression::None };
        match target {
            "table_block" => raw_block(&Opened::of(rows, TableOptions { block_bytes: 1 << 20, ..options })),
            _ => {
                let table = build(rows, options);
                joined(table.entry.meta_offset, &meta_parts(&table.body.to_bytes(), table.entry.meta_offset))
            }
        }
    };
    [1, 10, 60].map(|count| (count.to_string(), of(count))).into()
}

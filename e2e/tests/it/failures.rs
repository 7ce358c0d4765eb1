//! `e2e/FAILURES.md` says what broke in systems like this one, and which of our tests would notice. A name there that
//! stands for no test is a promise that nobody keeps.

use std::collections::BTreeSet;
use std::path::Path;

/// The lines that must be covered: all but the one about throughput over time, which is the benchmark's.
const COVERED: [std::ops::RangeInclusive<u32>; 1] = [1..=70];

#[test]
fn every_failure_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = std::fs::read_to_string(root.join("e2e/FAILURES.md")).unwrap();
    let mut covered = BTreeSet::new();
    for row in table.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, line, what, tests, _] = cells[..] else { continue };
        let Ok(line) = line.parse::<u32>() else { continue };
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        for test in &named {
            let (file, name) =
                test.split_once("::").unwrap_or_else(|| panic!("line {line}: {test} is no test"));
            let code = std::fs::read_to_string(root.join(file))
                .unwrap_or_else(|e| panic!("line {line} ({what}) names {file}: {e}"));
            assert!(defines(&code, name), "line {line} ({what}): there is no {name} in {file}");
        }
        if !named.is_empty() {
            covered.insert(line);
        }
    }
    let missing: Vec<_> = COVERED.into_iter().flatten().filter(|line| !covered.contains(line)).collect();
    assert!(missing.is_empty(), "no test is named for {missing:?}");
}

/// Whether the function `name` is there: as it is, or as a property's.
fn defines(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].trim_end();
        let after = code[at + name.len()..].trim_start();
        before.ends_with("fn") && (after.starts_with('(') || after.starts_with('<'))
    })
}

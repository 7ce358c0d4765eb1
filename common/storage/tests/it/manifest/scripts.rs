//! Histories as text scripts: commands build edits, and the printed manifest is the fixture.
//!
//! A script is a list of commands, each followed by what it printed, behind `| `. A command that is refused prints why.
//! ```text
//! > claim 1                         epoch 1 adopts nothing
//! > claim 2 roll 11..12 13..13      epoch 2 adopts these segments of epoch 1
//! > append 1..10 11..20             segments of the newest epoch
//! > flush 20 t1:a..k:1..20 chunk    tables name:from..to:first..last
//! > merge 5 4 t2:a..k:1..20 judged 20 dropped planned 3
//! > trim 10    > snapshot name 5    > drop name    > collect
//! > show                            prints the manifest
//! ```
//! `ISLE_UPDATE_SCRIPTS=1 cargo test -p isle-storage manifest::scripts` writes what was printed into the scripts;
//! the difference is then there to be read and committed.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use isle_storage::ids::SeqNo;
use isle_storage::manifest::{Change, LogEntry, Manifest, TableEntry, text};

use super::build;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifest/scripts")
}

#[test]
fn scripts_print_what_they_say() {
    let update = std::env::var_os("ISLE_UPDATE_SCRIPTS").is_some();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let printed = run(&script);
        if update {
            std::fs::write(&path, &printed).unwrap();
        } else {
            similar(&path, &script, &printed);
        }
    }
}

#[track_caller]
fn similar(path: &Path, expected: &str, printed: &str) {
    for (n, (a, b)) in expected.lines().zip(printed.lines()).enumerate() {
        assert_eq!(a, b, "{}:{}", path.display(), n + 1);
    }
    assert_eq!(expected.lines().count(), printed.lines().count(), "{}", path.display());
}

/// The script again, with what its commands print now.
fn run(script: &str) -> String {
    let mut m = build::genesis();
    let mut out = String::new();
    for line in script.lines().filter(|l| !l.starts_with("| ")) {
        writeln!(out, "{line}").unwrap();
        let Some(command) = line.strip_prefix("> ") else { continue };
        for printed in execute(&mut m, command).lines() {
            writeln!(out, "| {printed}").unwrap();
        }
    }
    out
}

fn execute(m: &mut Manifest, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    if words[0] == "show" {
        return text::print(m);
    }
    match m.apply(&build::edit(m, vec![change(m, &words)])) {
        Ok(next) => {
            *m = next;
            String::new()
        }
        Err(e) => e.to_string(),
    }
}

fn change(m: &Manifest, words: &[&str]) -> Change {
    let number = |w: &str| -> u64 { w.parse().unwrap_or_else(|_| panic!("{w:?} in {words:?} is no number")) };
    let seq = || SeqNo(number(words[1]));
    let segments = |epoch: u64, spans: &[&str]| -> Vec<LogEntry> {
        spans.iter().map(|s| span(s)).map(|(a, b)| build::segment(epoch, a, b)).collect()
    };
    let tables: Vec<TableEntry> = words.iter().filter(|w| w.contains(':')).map(|w| table(w)).collect();
    let after = |word: &str| words.iter().position(|w| *w == word).map(|at| number(words[at + 1]));
    match words[0] {
        "claim" => build::adopt(number(words[1]), segments(m.epoch.0, words.get(3..).unwrap_or_default())),
        "append" => build::append(segments(m.epoch.0, &words[1..])),
        "flush" => {
            let first = m.flushed_seq.0 + 1;
            let chunk = words.contains(&"chunk").then(|| build::chunk(m.epoch.0, first, number(words[1])));
            build::flush(number(words[1]), tables, chunk)
        }
        "merge" => {
            let inputs: Vec<u64> = words[1..].iter().map_while(|w| w.parse().ok()).collect();
            let Change::Merge { inputs, tables, planned_mode, .. } = build::merge(&inputs, tables) else {
                panic!()
            };
            Change::Merge {
                inputs,
                tables,
                snapshots: after("planned").into_iter().map(SeqNo).collect(),
                planned_mode,
                dropped: words.contains(&"dropped"),
                judged: SeqNo(after("judged").unwrap_or(0)),
                expiry: None,
            }
        }
        "trim" => Change::TrimLog { trimmed_seq: seq() },
        "snapshot" => {
            Change::TakeSnapshot { name: words[1].to_owned(), snapshot: build::snapshot(number(words[2])) }
        }
        "drop" => Change::DropSnapshot { name: words[1].to_owned() },
        "collect" => Change::Collected { paths: m.retired.iter().map(|r| r.path.clone()).collect() },
        other => panic!("{other:?} is no command"),
    }
}

fn span(text: &str) -> (u64, u64) {
    let (first, last) = text.split_once("..").unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

/// `name:from..to:first..last`, and `:rows` where there are fewer than numbers.
fn table(text: &str) -> TableEntry {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to) = parts[1].split_once("..").unwrap();
    let (first, last) = span(parts[2]);
    let rows = parts.get(3).map_or(last + 1 - first, |r| r.parse().unwrap());
    TableEntry { rows, ..build::table(parts[0], from, to, first, last) }
}

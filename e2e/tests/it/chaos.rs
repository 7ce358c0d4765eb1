//! A short run of chaos: the same program as the long one (`make chaos`), with a seed whose plan holds most of what the
//! protocol is about: writers killed, frozen beyond their lease, stopped and cut off; etcd's leader killed and frozen,
//! its history compacted; a bucket that refuses, resets and loses replies; a frozen compactor.

use std::process::{Command, Output};

use serde_json::Value;

fn chaos(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_e2e-chaos")).args(args).output().unwrap()
}

#[test]
fn a_cluster_under_every_kind_of_fault_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let output = chaos(&["--seconds", "80", "--seed", "141", "--json", json.to_str().unwrap()]);
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "violations, or no run at all: {}", output.status);
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap();
    // A run in which nothing happened proves nothing.
    assert!(number("/faults_total") >= 10, "{report:#}");
    assert!(number("/epochs") >= 3, "the writer's role changed hands too seldom: {report:#}");
    assert!(number("/counts/acknowledged") >= 300, "{report:#}");
    assert!(number("/counts/reads") >= 300, "{report:#}");
    assert!(number("/counts/deliveries") >= 1_000, "{report:#}");
    assert!(number("/snapshots") >= 5, "{report:#}");
}

#[test]
fn the_plan_of_a_seed_is_the_same_every_time() {
    let plan = |seed: &str| chaos(&["--minutes", "30", "--plan", "--seed", seed]).stdout;
    assert_eq!(plan("7"), plan("7"));
    assert_ne!(plan("7"), plan("8"));
}

#[test]
fn what_it_does_not_understand_is_refused() {
    for wrong in [&["--minutes"][..], &["--seed", "x"], &["--hours", "2"]] {
        let output = chaos(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("usage"), "{wrong:?}");
    }
}

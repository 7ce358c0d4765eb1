//! The same seed is the same run, byte for byte, whatever ran before or runs beside it.

use simulation::run;

/// The first lines in which two logs differ.
fn difference(one: &str, other: &str) -> Option<String> {
    let mut lines = one.lines().zip(other.lines()).enumerate();
    let differs = lines.find(|(_, (a, b))| a != b);
    let text = differs.map(|(n, (a, b))| format!("line {}:\n  {a}\n  {b}", n + 1));
    text.or_else(|| (one.len() != other.len()).then(|| "one log is longer".to_owned()))
}

#[test]
fn a_seed_is_a_run() {
    // Side by side, and one after the other.
    let seeds: Vec<u64> = (500..512).collect();
    let twice = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..2).map(|_| scope.spawn(|| seeds.iter().map(|s| run(*s, true)).collect::<Vec<_>>())).collect();
        runs.into_iter().map(|r| r.join().unwrap()).collect::<Vec<_>>()
    });
    for (one, other) in twice[0].iter().zip(&twice[1]) {
        let seed = one.plan.seed;
        if let Some(difference) = difference(&one.log, &other.log) {
            panic!("seed {seed} ran in two ways; {difference}");
        }
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
        assert!(one.events > 100, "seed {seed}: hardly anything happened");
    }
    assert!(twice[0].windows(2).all(|w| w[0].fingerprint != w[1].fingerprint));
}

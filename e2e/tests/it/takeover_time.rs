//! How long a database is without a writer, in short: `e2e-takeover` measures it properly, with the lease of production
//! and many times.

use std::time::Duration;

use e2e::takeover::{Asked, measure};

/// A planned hand-over takes well under a second on a machine that does nothing else; this one runs a dozen other
/// tests at the same time.
const BUSY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_costs_the_lease_and_a_planned_hand_over_next_to_nothing() {
    let lease = Duration::from_secs(3);
    let asked = Asked { lease, crashes: 2, handovers: 4 };
    let measured = measure(asked, |_| {}).await;
    println!("{measured}");
    assert_eq!(measured.violations, Vec::<String>::new());
    let [least, _, most] = measured.crashes.summary().unwrap();
    // A crash before the lease ends cannot be told from a pause: whoever takes over earlier has not waited for it.
    assert!(least > lease / 2, "{least:?} is less than what was left of the lease");
    assert!(most <= lease + Duration::from_secs(2) + BUSY, "{most:?}");
    let [_, median, most] = measured.handovers.summary().unwrap();
    assert!(median <= Duration::from_secs(1), "{median:?}");
    assert!(most <= Duration::from_secs(1) + BUSY, "{most:?}");
    assert!(measured.acknowledged > 100);
}

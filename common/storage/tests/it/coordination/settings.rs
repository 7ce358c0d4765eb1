//! From settings to a form.

use isle_storage::coordination::settings::{CoordinationSettings, connect};
use isle_storage::coordination::{Backend, CoordinationError};
use isle_storage::environment::Environment;

use super::services::memory_bucket;

#[tokio::test]
async fn the_url_chooses_the_form() {
    let env = Environment::system("test", "settings");
    for (url, backend) in [("bucket", Backend::Bucket), ("memory", Backend::Memory)] {
        let made = connect(&CoordinationSettings::new(url), "db", memory_bucket(), &env).await.unwrap();
        assert_eq!(made.backend(), backend);
    }
    for (url, name) in [("zookeeper://x", "db"), ("bucket", "No Name")] {
        let refused = connect(&CoordinationSettings::new(url), name, memory_bucket(), &env).await;
        assert!(matches!(refused, Err(CoordinationError::Refused(_))), "{refused:?}");
    }
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn a_build_without_etcd_says_so() {
    let env = Environment::system("test", "settings");
    let settings = CoordinationSettings::new("etcd://127.0.0.1:1");
    let refused = connect(&settings, "db", memory_bucket(), &env).await;
    assert!(
        matches!(&refused, Err(CoordinationError::Refused(why)) if why.contains("feature `etcd`")),
        "{refused:?}"
    );
}

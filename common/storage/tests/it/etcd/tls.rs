//! Encrypted connections, with certificates on both sides.

use std::path::{Path, PathBuf};
use std::process::Command;

use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::etcd::EtcdSettings;
use isle_storage::environment::Environment;
use isle_storage::object::MemoryBucket;
use tempfile::TempDir;

use super::scene::{Scene, Watched, commit_snapshot};
use super::server::EtcdServer;

const INSTALL: &str = "apt-get install -y --no-install-recommends openssl";

/// An authority, a server's and a client's certificate signed by it, and one signed by nobody known.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.authority("ca");
        this.authority("stranger");
        this.signed("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth");
        this.signed("client", "extendedKeyUsage=clientAuth");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|e| panic!("openssl cannot be started ({e}): {INSTALL}"));
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} \
             -keyout {name}.key -out {name}.pem"
        ));
    }

    fn signed(&self, name: &str, extensions: &str) {
        std::fs::write(self.path(&format!("{name}.ext")), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key \
             -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
        ));
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A client with the right certificates works, and one that trusts another authority, or shows no certificate, does not.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    let certs = Certificates::new();
    let flags = ["server.pem", "server.key", "ca.pem"].map(|name| text(&certs.path(name)));
    let etcd = EtcdServer::start_tls(&[
        "--cert-file",
        &flags[0],
        "--key-file",
        &flags[1],
        "--trusted-ca-file",
        &flags[2],
        "--client-cert-auth",
    ])
    .await;
    let env = Environment::system("test", "default");
    let bucket = std::sync::Arc::new(MemoryBucket::new(std::sync::Arc::clone(&env.clock)));
    let scene = Scene { etcd, bucket, env };
    let mut settings = scene.settings();
    settings.url = settings.url.replace("etcd://", "etcds://");
    settings.ca = Some(certs.path("ca.pem"));
    settings.cert = Some(certs.path("client.pem"));
    settings.key = Some(certs.path("client.key"));
    let db = scene.database_with(&settings).await;
    let state = commit_snapshot(&db, "s").await;
    Watched::from(&db.coordination, &state).until_alive().await;
    assert!(db.coordination.exists().await.unwrap());

    let mut strange = settings.clone();
    strange.ca = Some(certs.path("stranger.pem"));
    assert!(scene.connect_with(&strange).await.is_err(), "etcd's certificate is signed by somebody else");
    let mut nameless = settings.clone();
    (nameless.cert, nameless.key) = (None, None);
    assert!(scene.connect_with(&nameless).await.is_err(), "etcd wants a certificate");
    type Break = fn(&mut EtcdSettings);
    let broken: [Break; 4] = [
        |s| s.ca = None,
        |s| s.key = None,
        |s| s.ca = Some("/nowhere/ca.pem".into()),
        |s| s.url = s.url.replace("etcds://", "etcd://"),
    ];
    for break_them in broken {
        let mut settings = settings.clone();
        break_them(&mut settings);
        match scene.connect_with(&settings).await {
            Err(CoordinationError::Refused(why)) => assert!(why.contains("coordination."), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

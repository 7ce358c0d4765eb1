//! The life of a program: it listens before its engine is open, says what it waits for, drains, and ends with the right
//! code.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isle_service::ApiError;
use isle_service::client::{BaseUrl, Client};
use isle_service::config::Settings;
use isle_service::server::{Encoder, HttpMetrics, Routes, bind};
use isle_service::shell::{FaceParts, OpenError, OpenParts, Program, Refusal, Signals, run_until};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::support::{BOUND, text_of};

/// What a test decides about the program it runs.
#[derive(Debug, Clone)]
struct Script {
    /// What opening comes to; the program waits for it.
    open: watch::Receiver<Option<Result<(), OpenError>>>,
    /// Each attempt's advertised address.
    attempts: mpsc::UnboundedSender<String>,
    /// Refuses after it was opened.
    wiped: CancellationToken,
    once: bool,
    drained: Arc<AtomicBool>,
}

#[derive(Debug, Clone, clap::Args)]
struct Args {
    #[arg(skip)]
    script: Option<Script>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {}

#[derive(Debug)]
struct Echo;

impl Program for Echo {
    const ROLE: &'static str = "reader";
    const NAME: &'static str = "reader-node";
    const ABOUT: &'static str = "answers";
    const DEFAULT_PORT: u16 = 7302;
    type Args = Args;
    type Config = Config;
    type Environment = ();
    type Engine = Script;

    fn environment(_: &str, _: &HttpMetrics) -> ((), Encoder) {
        ((), Encoder::none())
    }

    fn routes(parts: FaceParts<Self>) -> Routes {
        let answer = move || {
            let (slot, drain) = (parts.slot.clone(), parts.drain.clone());
            async move {
                let _engine = slot.get()?;
                drain.check()?;
                Ok::<_, ApiError>("served")
            }
        };
        Routes::new().get("/v1/status", answer)
    }

    async fn open(parts: OpenParts<Self>) -> Result<Script, OpenError> {
        let script = parts.args.script.clone().unwrap();
        let _ = script.attempts.send(parts.advertise.clone());
        let mut open = script.open.clone();
        let outcome = open.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        outcome.map(|()| script)
    }

    async fn refused(engine: Arc<Script>) -> Refusal {
        engine.wiped.cancelled().await;
        Refusal { exit: 1, message: "the database was wiped".into() }
    }

    async fn drain(engine: Arc<Script>, _: Instant) {
        engine.drained.store(true, Ordering::SeqCst);
    }

    fn is_once(args: &Args) -> bool {
        args.script.as_ref().unwrap().once
    }

    async fn run_once(parts: OpenParts<Self>) -> u8 {
        parts.drain.draining().await;
        3
    }
}

struct Running {
    exit: JoinHandle<u8>,
    open: watch::Sender<Option<Result<(), OpenError>>>,
    attempts: mpsc::UnboundedReceiver<String>,
    stop: CancellationToken,
    wiped: CancellationToken,
    drained: Arc<AtomicBool>,
}

fn launch(listen: SocketAddr, once: bool) -> Running {
    let (open, opens) = watch::channel(None);
    let (attempted, attempts) = mpsc::unbounded_channel();
    let (stop, wiped) = (CancellationToken::new(), CancellationToken::new());
    let drained = Arc::new(AtomicBool::new(false));
    let script = Script {
        open: opens,
        attempts: attempted,
        wiped: wiped.clone(),
        once,
        drained: Arc::clone(&drained),
    };
    let mut settings = Settings::<Config>::default();
    settings.server.listen = Some(listen);
    let args = Args { script: Some(script) };
    let exit = tokio::spawn(run_until::<Echo>(args, settings, Signals::from_token(stop.clone())));
    Running { exit, open, attempts, stop, wiped, drained }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn status(base: &str, target: &str) -> (u16, String) {
    let base: BaseUrl = base.parse().unwrap();
    let answer = Client::default().request(http::Method::GET, &base, target).send().await.unwrap();
    text_of(answer).await
}

async fn exit_of(exit: JoinHandle<u8>) -> u8 {
    tokio::time::timeout(BOUND, exit).await.unwrap().unwrap()
}

/// Bucket or etcd away at the start: the program listens, is live, is not ready with the reason, and goes on by itself.
#[tokio::test]
async fn a_program_that_waits_says_for_what() {
    let mut program = launch(any_port(), false);
    let base = program.attempts.recv().await.unwrap();
    program
        .open
        .send_replace(Some(Err(OpenError::Passing("etcd at 127.0.0.1:1 refuses connections".into()))));
    // A second attempt means that the first one's failure has been taken note of.
    program.attempts.recv().await.unwrap();
    assert_eq!(status(&base, "/livez").await.0, 200);
    let (code, text) = status(&base, "/readyz").await;
    assert_eq!(code, 503);
    assert!(text.contains("start: etcd at 127.0.0.1:1 refuses connections"), "{text}");
    let (code, text) = status(&base, "/v1/status").await;
    assert_eq!(code, 503);
    assert!(text.contains("not_ready") && text.contains("refuses connections"), "{text}");

    program.open.send_replace(Some(Ok(())));
    while status(&base, "/readyz").await.0 != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&base, "/v1/status").await, (200, "served".into()));
    program.stop.cancel();
    assert_eq!(exit_of(program.exit).await, 0);
    assert!(program.drained.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_signal_while_waiting_ends_it_with_0() {
    let mut program = launch(any_port(), false);
    program.attempts.recv().await.unwrap();
    program.stop.cancel();
    assert_eq!(exit_of(program.exit).await, 0);
    assert!(!program.drained.load(Ordering::SeqCst), "there was nothing to drain");
}

#[tokio::test]
async fn definite_refusals_end_it_with_their_code() {
    let program = launch(any_port(), false);
    program.open.send_replace(Some(Err(OpenError::bad_setting("wrong database"))));
    assert_eq!(exit_of(program.exit).await, 2);
    let program = launch(any_port(), false);
    program.open.send_replace(Some(Err(OpenError::failed("credentials refused"))));
    assert_eq!(exit_of(program.exit).await, 1);
    let program = launch(any_port(), false);
    program.open.send_replace(Some(Ok(())));
    program.wiped.cancel();
    assert_eq!(exit_of(program.exit).await, 1);
    assert!(program.drained.load(Ordering::SeqCst), "an engine that is refused is drained too");
}

#[tokio::test]
async fn a_port_in_use_ends_it_with_1() {
    let held = bind(any_port()).await.unwrap();
    assert_eq!(exit_of(launch(held.local_addr(), false).exit).await, 1);
}

/// A job without an HTTP face takes no port, hears the signal and returns its own code.
#[tokio::test]
async fn a_job_is_told_to_stop_and_keeps_its_code() {
    let held = bind(any_port()).await.unwrap();
    let program = launch(held.local_addr(), true);
    program.stop.cancel();
    assert_eq!(exit_of(program.exit).await, 3);
}

/// A real SIGTERM reaches whoever waits.
#[tokio::test]
async fn sigterm_is_heard() {
    let signals = Signals::install().unwrap();
    let me = std::process::id().to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &me]).status().unwrap();
    assert!(sent.success());
    tokio::time::timeout(BOUND, signals.first()).await.unwrap();
}

/// A second signal ends the process at once, with 1. It takes a process of its own: this test runs itself again.
#[tokio::test]
async fn a_second_signal_ends_the_process() {
    const CHILD: &str = "ISLE_TEST_TWO_SIGNALS";
    let terminate = || {
        let me = std::process::id().to_string();
        std::process::Command::new("kill").args(["-TERM", &me]).status().unwrap()
    };
    if std::env::var_os(CHILD).is_some() {
        let signals = Signals::install().unwrap();
        terminate();
        signals.first().await;
        terminate();
        tokio::time::sleep(BOUND).await;
        panic!("still alive");
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program::a_second_signal_ends_the_process"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(1), "{child:?}");
}

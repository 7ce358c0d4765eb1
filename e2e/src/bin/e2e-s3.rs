//! The embedded S3 server as a program: `e2e-s3 DIR ADDRESS`. It serves the bucket `isle` below DIR with the access
//! key `isle-test` and the secret `isle-test-secret`. For tests and trials only.

use std::path::PathBuf;

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().map(PathBuf::from);
    let address = args.next().and_then(|a| a.into_string().ok()).and_then(|a| a.parse().ok());
    match (dir, address) {
        (Some(dir), Some(address)) => {
            e2e::servers::serve(&dir, address);
            std::process::ExitCode::SUCCESS
        }
        _ => std::process::ExitCode::from(2),
    }
}

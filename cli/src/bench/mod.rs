//! `isle bench`.

mod data;
mod drive;
mod report;

use crate::args::BenchArgs;

pub(crate) async fn run(_args: BenchArgs) -> Result<(), String> {
    Err("not here yet".to_owned())
}

//! Where the nodes are: those that run already, or all four roles in this process.

use crate::args::{Nodes, StressArgs, UpArgs};
use crate::output::Failure;
use crate::up::{self, Up};

/// The nodes under stress.
pub(super) struct Home {
    pub(super) nodes: Nodes,
    up: Option<Up>,
}

impl Home {
    /// The nodes the command line names; with `--dir`, all roles on that directory, started here.
    pub(super) async fn open(args: &StressArgs) -> Result<Self, Failure> {
        let Some(dir) = &args.dir else { return Ok(Self { nodes: args.nodes.clone(), up: None }) };
        let up_args = UpArgs {
            dir: dir.clone(),
            store: None,
            coordination: "bucket".to_owned(),
            database: "default".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 0,
            config: None,
            log_format: "text".to_owned(),
            log_level: "error".to_owned(),
        };
        let up = Up::start(&up_args, &up::layers(&up_args)?).await?;
        up.ready().await;
        let one = |n: usize| vec![up.addresses[n].clone()];
        let nodes = Nodes {
            writers: one(0),
            readers: one(1),
            tailers: one(2),
            compactors: one(3),
            json: args.nodes.json,
        };
        Ok(Self { nodes, up: Some(up) })
    }

    pub(super) async fn close(self) {
        if let Some(up) = self.up {
            up.stop().await;
        }
    }
}

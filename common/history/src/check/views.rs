//! The views of one process, or of one session, never go back.

use std::collections::HashMap;

use super::findings::{Findings, Rule};
use super::mark::Mark;
use crate::event::{Name, Stamped};

/// The highest view that each process and each session has shown.
#[derive(Debug, Default)]
pub(super) struct Views {
    seen: HashMap<Name, Mark>,
    reported: HashMap<Name, Reported>,
}

#[derive(Debug, Clone)]
struct Reported {
    lineage: Option<Name>,
    version: u64,
    seq: u64,
    event: Stamped,
}

impl Views {
    /// What a read invoked now must at least be answered from.
    pub(super) fn floor(&self, name: Option<&Name>) -> Option<(Name, Mark)> {
        let name = name?;
        self.seen.get(name).map(|mark| (name.clone(), mark.clone()))
    }

    /// A read was answered from this view.
    pub(super) fn raise(&mut self, name: Option<&Name>, seq: u64, proof: &Stamped) {
        if let Some(name) = name {
            self.seen.entry(name.clone()).or_default().raise(seq, proof);
        }
    }

    /// A process told which view it holds.
    pub(super) fn report(
        &mut self,
        process: &Name,
        lineage: Option<&Name>,
        version: u64,
        seq: u64,
        event: &Stamped,
        findings: &mut Findings,
    ) {
        let now = Reported { lineage: lineage.cloned(), version, seq, event: event.clone() };
        if let Some(before) = self.reported.get(process)
            && before.lineage == now.lineage
            && (before.version > version || before.seq > seq)
        {
            let message = format!(
                "{process} held version {} up to {}, and later version {version} up to {seq}",
                before.version, before.seq
            );
            findings.violation(Rule::ViewsNeverGoBack, message, &[&before.event, event], &[]);
        }
        self.reported.insert(process.clone(), now);
        self.raise(Some(process), seq, event);
    }
}

//! Small models of what deletes, searched exhaustively: every interleaving of a few actors, each of which may stop for
//! ever between any two of its steps. What the engines do with real objects is tested elsewhere; here stands that the
//! *rules* suffice, and, by taking each one out, that each one is needed.

mod garbage;
mod sweep;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::Hash;

/// More states than any of the models has.
const MOST_STATES: usize = 4_000_000;

/// A set of objects, by number.
type Objects = u16;

fn has(set: Objects, object: u8) -> bool {
    set & (1 << object) != 0
}

fn with(set: Objects, object: u8) -> Objects {
    set | (1 << object)
}

fn without(set: Objects, object: u8) -> Objects {
    set & !(1 << object)
}

fn lowest(set: Objects) -> Option<u8> {
    (set != 0).then(|| set.trailing_zeros() as u8)
}

/// A model: its states, the steps from one to the next, and what must hold in all of them.
trait Model {
    type State: Clone + Eq + Hash + Debug;

    fn start(&self) -> Self::State;

    /// Every step that any actor may take next, with its name.
    fn steps(&self, state: &Self::State) -> Vec<(&'static str, Self::State)>;

    /// What is wrong with the state, if anything.
    fn wrong(&self, state: &Self::State) -> Option<&'static str>;
}

/// What a search found.
struct Found {
    states: usize,
    /// The shortest schedule to a wrong state, and what is wrong there.
    broken: Option<(&'static str, Vec<&'static str>)>,
}

/// Visits every state that can be reached, breadth first.
fn search<M: Model>(model: &M) -> Found {
    let mut states = vec![model.start()];
    let mut seen: HashMap<M::State, usize> = HashMap::from([(model.start(), 0)]);
    let mut came: Vec<(usize, &'static str)> = vec![(0, "start")];
    let mut at = 0;
    while at < states.len() {
        if let Some(what) = model.wrong(&states[at]) {
            return Found { states: states.len(), broken: Some((what, schedule(&came, at))) };
        }
        for (step, next) in model.steps(&states[at]) {
            if let Entry::Vacant(new) = seen.entry(next) {
                states.push(new.key().clone());
                new.insert(states.len() - 1);
                came.push((at, step));
            }
        }
        assert!(states.len() < MOST_STATES, "the model is too large");
        at += 1;
    }
    Found { states: states.len(), broken: None }
}

fn schedule(came: &[(usize, &'static str)], mut at: usize) -> Vec<&'static str> {
    let mut steps = Vec::new();
    while at != 0 {
        steps.push(came[at].1);
        at = came[at].0;
    }
    steps.reverse();
    steps
}

/// Nothing goes wrong with every rule in force, and something with any one of them taken out.
fn judge<M: Model, R: Copy + Debug>(model: impl Fn(Option<R>) -> M, rules: &[R], least: usize) {
    let found = search(&model(None));
    assert!(found.broken.is_none(), "{:?}", found.broken);
    assert!(found.states > least, "only {} states: the model does not move", found.states);
    for rule in rules {
        let found = search(&model(Some(*rule)));
        assert!(found.broken.is_some(), "without {rule:?} nothing goes wrong in {} states", found.states);
    }
}

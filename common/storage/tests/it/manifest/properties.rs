//! Properties of every history: incremental and full replay agree, every stored form comes back, and whatever is
//! accepted is whole.

use isle_storage::manifest::{Edit, Manifest, check, checkpoint, text};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::grow::Grower;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn replay(from: &Manifest, edits: &[Edit]) -> Manifest {
    edits.iter().fold(from.clone(), |m, e| m.apply(e).unwrap())
}

proptest! {
    #![proptest_config(config(48))]

    /// A reader that follows edits, one that starts from any checkpoint, and one that reads the text form see one
    /// manifest. Edits travel as JSON.
    #[test]
    fn replay_from_any_checkpoint_gives_what_following_gave(seed in any::<u64>(), steps in 1usize..120) {
        let mut grower = Grower::new(seed);
        let genesis = grower.m.clone();
        let mut edits = Vec::new();
        let mut checkpoints = vec![(0, checkpoint::encode(&genesis))];
        for n in 1..=steps {
            let edit = grower.step();
            let read = Edit::from_json(&edit.to_json().unwrap()).unwrap();
            prop_assert_eq!(&read, &edit);
            edits.push(read);
            prop_assert_eq!(check::whole(&grower.m), Ok(()));
            if n % 17 == 0 || n == steps {
                let printed = text::print(&grower.m);
                prop_assert_eq!(&text::parse(&printed).map_err(TestCaseError::fail)?, &grower.m, "{}", printed);
                checkpoints.push((n, checkpoint::encode(&grower.m)));
            }
        }
        for (n, bytes) in checkpoints {
            let from = checkpoint::decode(&bytes).unwrap();
            prop_assert_eq!(&replay(&from, &edits[n..]), &grower.m, "from the checkpoint at {}", n);
        }
        let parsed = text::parse(&text::print(&genesis)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&replay(&parsed, &edits), &grower.m, "from the text form");
    }

    /// The checks of a step look only at what has changed; they must refuse all that the whole check refuses.
    #[test]
    fn what_a_damaged_edit_leads_to_is_refused_or_whole(seed in any::<u64>(), steps in 1usize..60, tweaks in any::<[u64; 4]>()) {
        let mut grower = Grower::new(seed);
        for _ in 0..steps {
            grower.step();
        }
        for tweak in tweaks {
            let before = grower.m.clone();
            let mut json = serde_json::to_value(grower.step()).unwrap();
            damage(&mut json, tweak);
            if let Ok(edit) = serde_json::from_value::<Edit>(json)
                && let Ok(after) = before.apply(&edit)
            {
                prop_assert_eq!(check::whole(&after), Ok(()), "{:?}", edit);
            }
        }
    }
}

/// Changes one number somewhere in the changes.
fn damage(edit: &mut Json, tweak: u64) {
    fn numbers(at: &mut Json) -> Vec<&mut Json> {
        match at {
            Json::Number(_) => vec![at],
            Json::Array(items) => items.iter_mut().flat_map(numbers).collect(),
            Json::Object(fields) => fields.values_mut().flat_map(numbers).collect(),
            _ => Vec::new(),
        }
    }
    let mut found = numbers(&mut edit["changes"]);
    if found.is_empty() {
        return;
    }
    let at = (tweak >> 8) as usize % found.len();
    let n = found[at].as_i64().unwrap_or(0);
    let changed = match tweak % 5 {
        0 => n.saturating_add(1),
        1 => n.saturating_sub(1),
        2 => 0,
        3 => n.saturating_mul(2),
        _ => i64::MAX,
    };
    *found[at] = changed.into();
}

//! Checkpoints: what is written comes back, and what is damaged or newer is refused.

use isle_storage::format::FormatError;
use isle_storage::manifest::{Edit, Manifest, checkpoint};
use serde_json::json;

use super::build::*;
use super::grow::Grower;

fn grown() -> Manifest {
    let mut grower = Grower::new(7);
    for _ in 0..60 {
        grower.step();
    }
    grower.m
}

#[test]
fn a_flipped_bit_anywhere_in_a_checkpoint_is_noticed() {
    let good = checkpoint::encode(&with_log(&[(1, 10)]));
    checkpoint::decode(&good).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(checkpoint::decode(&bad).is_err(), "bit {bit} of byte {at}");
        }
    }
}

/// A missing or half-written checkpoint must never read as an empty database.
#[test]
fn a_checkpoint_cut_anywhere_or_followed_by_anything_is_refused() {
    let good = checkpoint::encode(&grown());
    for len in 0..good.len() {
        assert!(checkpoint::decode(&good[..len]).is_err(), "cut to {len}");
    }
    assert!(checkpoint::decode(&[&good[..], b"\0"].concat()).is_err());
}

/// Fields of a newer version, at every level that keeps them, are written back as they were.
#[test]
fn unknown_fields_survive_a_checkpoint_and_the_edits_after_it() {
    let mut json = serde_json::to_value(with_log(&[(1, 10)])).unwrap();
    json["later"] = json!({"a": [1, 2]});
    json["log"][0]["codec"] = json!("x");
    let m: Manifest = serde_json::from_value(json).unwrap();
    let m = after(&checkpoint::decode(&checkpoint::encode(&m)).unwrap(), append(vec![segment(1, 11, 12)]));
    let back = serde_json::to_value(checkpoint::decode(&checkpoint::encode(&m)).unwrap()).unwrap();
    assert_eq!(back["later"], json!({"a": [1, 2]}));
    assert_eq!(back["log"][0]["codec"], json!("x"));
}

#[test]
fn an_unknown_required_feature_is_too_new_not_damaged() {
    let mut m = with_log(&[(1, 10)]);
    m.required_features.push("time_travel".into());
    let error = checkpoint::decode(&checkpoint::encode(&m)).unwrap_err();
    assert!(matches!(&error, FormatError::TooNew { why, .. } if why.contains("time_travel")), "{error}");
    m.required_features = vec!["blobs".into(), "fifo".into()];
    assert_eq!(checkpoint::decode(&checkpoint::encode(&m)).unwrap(), m);
    m.format = 2;
    assert!(matches!(checkpoint::decode(&checkpoint::encode(&m)), Err(FormatError::TooNew { .. })));
}

#[test]
fn an_edit_that_needs_an_unknown_feature_is_too_new_whatever_else_it_holds() {
    let newer =
        json!({"required_features": ["time_travel"], "changes": [{"change": "travel"}], "version": 3});
    let error = Edit::from_json(newer.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, FormatError::TooNew { .. }), "{error}");
    assert!(matches!(Edit::from_json(b"{}"), Err(FormatError::Damaged { .. })));
}

/// A sound object whose manifest breaks an invariant is refused too.
#[test]
fn a_checkpoint_that_breaks_an_invariant_is_refused() {
    let mut m = with_log(&[(1, 10)]);
    m.last_seq.0 = 9;
    let error = checkpoint::decode(&checkpoint::encode(&m)).unwrap_err();
    assert!(error.to_string().contains("the log ends at 10"), "{error}");
}

#[test]
fn a_checkpoint_of_several_blocks_comes_back() {
    let segments: Vec<(u64, u64)> = (0..12_000).map(|n| (n * 3 + 1, n * 3 + 3)).collect();
    let m = with_log(&segments);
    let bytes = checkpoint::encode(&m);
    assert!(serde_json::to_vec(&m).unwrap().len() > 2 * 1024 * 1024);
    assert_eq!(checkpoint::decode(&bytes).unwrap(), m);
}

//! Base64 as clients write it: both alphabets, padding optional. We write the URL alphabet in queries and the standard
//! one in JSON.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_LENIENT: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const URL_BARE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT.with_encode_padding(false));

/// The bytes that `text` stands for, or why it stands for none.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let url = text.iter().any(|b| matches!(b, b'-' | b'_'));
    let engine = if url { &URL_LENIENT } else { &STANDARD_LENIENT };
    engine.decode(text).map_err(|e| format!("not base64: {e}"))
}

/// Appends `bytes` in the standard alphabet, padded, as JSON answers carry them.
pub fn encode_standard(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    // The encoded length of anything that fits memory as bytes fits usize.
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD_LENIENT.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// `bytes` in the URL alphabet, not padded, as queries and tokens carry them.
#[must_use]
pub fn encode_url(bytes: &[u8]) -> String {
    URL_BARE.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_alphabets_with_or_without_padding() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(decode(text.as_bytes()).unwrap(), [0xfb, 0xff], "{text}");
        }
        assert_eq!(decode(b"").unwrap(), b"");
        for bad in ["a", "=", "a b=", "+_8=", "////=", "é"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = b"x".to_vec();
            encode_standard(&mut out, &bytes);
            prop_assert_eq!(&decode(&out[1..]).unwrap(), &bytes);
            prop_assert_eq!(&decode(encode_url(&bytes).as_bytes()).unwrap(), &bytes);
        }
    }
}

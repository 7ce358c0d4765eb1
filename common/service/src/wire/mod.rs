//! What travels between a client and a program: pure encoders and decoders, and the readers that run them over a
//! request's body.

pub mod base64;
pub mod body;
pub mod duration;
pub mod frame;
pub mod frames;
pub mod headers;
pub mod key;
pub mod lines;
pub mod media;
pub mod mutation;
pub mod position;
pub mod query;
pub mod range;
pub mod records;
pub mod row;
pub mod text;
pub mod time;

pub use body::{json_body, read_body};
pub use duration::Ttl;
pub use frame::{Frame, Kind};
pub use frames::FrameReader;
pub use key::{MAX_KEY_BYTES, escape_key, key_target, path_is_safe, raw_key};
pub use lines::{Line, LineReader};
pub use media::Format;
pub use mutation::{Event, Mutation};
pub use position::{MinSeq, Position};
pub use query::Query;
pub use records::{Record, Records};
pub use row::{Op, RowJson, write_absent_json, write_row_json};
pub use text::Encoding;

//! Which operations a fault strikes.

use std::fmt;
use std::sync::Arc;

/// Operations of a bucket, as rules choose them; a ranged get is a [`Op::Get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `put`
    Put,
    /// `create`
    Create,
    /// `get` and `get_range`
    Get,
    /// `head`
    Head,
    /// `list`; its path is the folder
    List,
    /// `delete`
    Delete,
    /// `copy_from`; its path is the copy's
    Copy,
    /// `begin_upload`
    Begin,
    /// `upload_part`
    Part,
    /// `complete_upload`
    Complete,
    /// `abort_upload`
    Abort,
}

impl Op {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Create => "create",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
            Self::Begin => "begin_upload",
            Self::Part => "upload_part",
            Self::Complete => "complete_upload",
            Self::Abort => "abort_upload",
        }
    }
}

type Predicate = Arc<dyn Fn(Op, &str) -> bool + Send + Sync>;

/// Which operations a fault strikes. Without `nth` it strikes every matching one until it is removed.
#[derive(Clone)]
pub struct Rule {
    op: Option<Op>,
    path: Option<String>,
    predicate: Option<Predicate>,
    pub(super) skip: u64,
    pub(super) times: u64,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}, {} after {}", self.op, self.path, self.times, self.skip)
    }
}

impl Rule {
    /// Every operation of any kind.
    #[must_use]
    pub fn any() -> Self {
        Self { op: None, path: None, predicate: None, skip: 0, times: u64::MAX }
    }

    /// Every operation of one kind.
    #[must_use]
    pub fn on(op: Op) -> Self {
        Self { op: Some(op), ..Self::any() }
    }

    /// Only paths of this pattern, where `*` stands for anything, slashes included.
    #[must_use]
    pub fn path(self, pattern: &str) -> Self {
        Self { path: Some(pattern.to_owned()), ..self }
    }

    /// Only where this says so.
    #[must_use]
    pub fn when(self, predicate: impl Fn(Op, &str) -> bool + Send + Sync + 'static) -> Self {
        Self { predicate: Some(Arc::new(predicate)), ..self }
    }

    /// Only the `n`th match from now on, the first being 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        self.after(n.saturating_sub(1)).times(1)
    }

    /// Not the first `n` matches.
    #[must_use]
    pub fn after(self, n: u64) -> Self {
        Self { skip: n, ..self }
    }

    /// At most `n` matches.
    #[must_use]
    pub fn times(self, n: u64) -> Self {
        Self { times: n, ..self }
    }

    pub(super) fn matches(&self, op: Op, path: &str) -> bool {
        self.op.is_none_or(|wanted| wanted == op)
            && self.path.as_deref().is_none_or(|pattern| glob(pattern.as_bytes(), path.as_bytes()))
            && self.predicate.as_ref().is_none_or(|says| says(op, path))
    }
}

pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some((c, rest)) => text.split_first().is_some_and(|(t, after)| t == c && glob(rest, after)),
    }
}

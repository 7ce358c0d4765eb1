//! The key space of one database: every key below `/<root>/<database>/` is built and parsed here.
//!
//! ```text
//! consumers/<group>       a consumer group's cursor, as JSON
//! consumers_mark          a random number, another one whenever a group comes to hold more of the log
//! edits/<version:020>     one edit each
//! epoch                   <lineage>:<n>
//! gc_floor                a version
//! head                    the head, as JSON
//! jobs/<id>               leased
//! members/<role>/<node>   leased
//! pins/<id>               leased
//! writer                  leased
//! ```
//! Groups are `consumers/` and not `groups/`, which would lie in the one range that everybody watches (from the edits to
//! the head): a commit of a cursor would then wake every process of the cluster.

use crate::ids::{Epoch, JobId, Lineage, Version};

/// The keys of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys below `/<root>/<database>/`.
    pub(super) fn new(root: &str, database: &str) -> Self {
        Self { prefix: format!("/{root}/{database}/") }
    }

    /// What every key starts with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    pub(super) fn epoch(&self) -> String {
        format!("{}epoch", self.prefix)
    }

    pub(super) fn writer(&self) -> String {
        format!("{}writer", self.prefix)
    }

    pub(super) fn gc_floor(&self) -> String {
        format!("{}gc_floor", self.prefix)
    }

    /// What every consumer group's key starts with.
    pub(super) fn groups(&self) -> String {
        format!("{}consumers/", self.prefix)
    }

    pub(super) fn group(&self, group: &str) -> String {
        format!("{}consumers/{group}", self.prefix)
    }

    /// The group's name in its key; `None` where the key is not a group's.
    pub(super) fn parse_group<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix("consumers/")
    }

    pub(super) fn groups_mark(&self) -> String {
        format!("{}consumers_mark", self.prefix)
    }

    /// What every edit's key starts with.
    pub(super) fn edits(&self) -> String {
        format!("{}edits/", self.prefix)
    }

    pub(super) fn edit(&self, version: Version) -> String {
        format!("{}edits/{:020}", self.prefix, version.0)
    }

    /// The version in an edit's key; `None` where the key is not an edit's.
    pub(super) fn parse_edit(&self, key: &[u8]) -> Option<Version> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix("edits/")?;
        Some(Version(name.parse().ok()?))
    }

    pub(super) fn job(&self, job: JobId) -> String {
        format!("{}jobs/{job}", self.prefix)
    }

    /// What every job's key starts with.
    pub(super) fn jobs(&self) -> String {
        format!("{}jobs/", self.prefix)
    }

    /// What every pin's key starts with.
    pub(super) fn pins(&self) -> String {
        format!("{}pins/", self.prefix)
    }

    pub(super) fn pin(&self, id: u64) -> String {
        format!("{}pins/{id:016x}", self.prefix)
    }

    /// What every member's key starts with.
    pub(super) fn members(&self) -> String {
        format!("{}members/", self.prefix)
    }

    pub(super) fn member(&self, role: &str, node: &str) -> String {
        format!("{}members/{role}/{node}", self.prefix)
    }

    /// The one range that holds every edit and the head, for a single watch: events of one revision then arrive
    /// together and in order, which two watches would not promise.
    pub(super) fn watched(&self) -> (String, String) {
        (self.edits(), format!("{}\0", self.head()))
    }
}

/// The value of the epoch key: the history and the newest epoch claimed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochValue {
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
}

impl EpochValue {
    /// Reads `<lineage>:<n>`; `None` where the bytes are something else.
    pub(super) fn parse(raw: &[u8]) -> Option<Self> {
        let (lineage, epoch) = std::str::from_utf8(raw).ok()?.split_once(':')?;
        Some(Self { lineage: lineage.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }

    /// The epoch after this one.
    pub(super) fn next(self) -> Self {
        Self { epoch: self.epoch.next(), ..self }
    }
}

impl std::fmt::Display for EpochValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.lineage, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_keys_parse_back_and_sort_by_version() {
        let keys = Keys::new("isle", "shop");
        assert_eq!(keys.edit(Version(7)), "/isle/shop/edits/00000000000000000007");
        assert_eq!(keys.parse_edit(keys.edit(Version(7)).as_bytes()), Some(Version(7)));
        assert!(keys.edit(Version(9)) < keys.edit(Version(10)));
        for other in ["/isle/shop/head", "/isle/shop2/edits/1", "/isle/shop/edits/x"] {
            assert_eq!(keys.parse_edit(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_watched_range_holds_edits_and_head_and_no_lease() {
        let keys = Keys::new("isle", "shop");
        let (from, to) = keys.watched();
        let within = |key: String| from <= key && key < to;
        assert!(within(keys.edit(Version(0))) && within(keys.edit(Version(u64::MAX))) && within(keys.head()));
        assert!(!within(keys.writer()) && !within(keys.job(JobId(1))) && !within(keys.member("reader", "a")));
        // A busy group wakes nobody who follows the head.
        assert!(!within(keys.group("a")) && !within(keys.group("zz")) && !within(keys.groups_mark()));
    }

    #[test]
    fn groups_parse_back_and_their_mark_is_none_of_them() {
        let keys = Keys::new("isle", "shop");
        assert_eq!(keys.parse_group(keys.group("mail.ers-1").as_bytes()), Some("mail.ers-1"));
        assert_eq!(keys.parse_group(keys.groups_mark().as_bytes()), None);
        assert!(!keys.groups_mark().starts_with(&keys.groups()));
    }

    #[test]
    fn epoch_values_round_trip_and_refuse_other_texts() {
        let value = EpochValue { lineage: Lineage(0xab), epoch: Epoch(3) };
        assert_eq!(EpochValue::parse(value.to_string().as_bytes()), Some(value));
        for bad in
            ["", "3", "xyz:3", "000000000000000000000000000000ab:", "000000000000000000000000000000ab:-1"]
        {
            assert_eq!(EpochValue::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}

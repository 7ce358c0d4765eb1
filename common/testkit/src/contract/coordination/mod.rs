//! The contract of [`Coordination`]: run over memory, over the bucket form on two stores, and over a real etcd.
//!
//! A scenario gets a fresh service, an empty bucket, and as many processes as it opens; a process is a [`Database`]
//! with a connection of its own, and sometimes with a faulty bucket or a lossy connection of its own.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use isle_storage::coordination::{Backend, Coordination};
use isle_storage::database::Database;
use isle_storage::object::Bucket;

mod basics;
mod fencing;
mod folding;
mod groups;
mod identity;
mod jobs;
mod lost_replies;
mod pins;
pub mod recovering;
mod takeover;
mod watching;
pub mod world;

pub use world::{World, Writer};

/// A coordination service under test, and the bucket of the one database it serves.
#[async_trait]
pub trait Service: Send + Sync {
    /// Which form it is.
    fn backend(&self) -> Backend;

    /// The bucket.
    fn bucket(&self) -> Arc<dyn Bucket>;

    /// A connection for one more process, which sees the bucket as `bucket` (the same one, perhaps with faults). The
    /// database is called `contract`.
    async fn connect(&self, bucket: Arc<dyn Bucket>) -> Arc<dyn Coordination>;

    /// The writer's lease ends without a word to its holder, as for a paused process. Nothing in forms without leases.
    async fn expire_writer(&self);

    /// A job's claim ends without a word to its holder; `false` where the form cannot do that from outside.
    async fn expire_jobs(&self) -> bool {
        false
    }

    /// Every pin's lease ends, as for holders that were cut off; `false` where that cannot be done from outside.
    async fn expire_pins(&self) -> bool {
        false
    }

    /// The head is gone, and everything around it that does not lie in the bucket.
    async fn wipe(&self);

    /// The head alone is gone, and checkpoints and records stay: what a recover starts from.
    async fn lose_head(&self) {
        self.wipe().await;
    }
}

/// Runs the whole contract; `fresh` makes an empty service with an empty bucket.
pub async fn coordination<F, Fut>(fresh: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Service>>,
{
    macro_rules! run {
        ($($scenario:path),+ $(,)?) => {$(
            let began = tokio::time::Instant::now();
            $scenario(World::new(fresh().await)).await;
            tracing::info!(scenario = stringify!($scenario), took = ?began.elapsed());
        )+};
    }
    run!(
        basics::a_database_is_created_once_and_found_again,
        basics::a_load_sees_every_commit,
        basics::of_two_proposals_on_one_base_one_is_committed,
        basics::a_missing_checkpoint_is_an_error_and_never_an_empty_database,
        basics::members_and_leader_are_told,
        identity::other_names_and_other_backends_are_refused,
        identity::a_head_that_is_gone_is_lost_and_never_an_empty_database,
        identity::a_creation_that_crashed_anywhere_is_finished,
        identity::objects_without_an_identity_are_no_fresh_prefix,
        identity::another_lineage_is_refused,
        fencing::an_old_writer_never_commits_after_a_takeover,
        fencing::a_claim_alone_fences_where_there_are_leases,
        fencing::an_observer_commits_whoever_writes,
        fencing::of_many_claimers_one_ends_as_the_writer,
        fencing::waiting_for_the_role_can_be_cancelled,
        lost_replies::a_lost_answer_is_resolved_and_applied_once,
        lost_replies::a_lost_answer_is_resolved_across_takeovers,
        lost_replies::an_unchanged_head_proves_nothing,
        lost_replies::an_observers_plan_is_committed_once_on_the_newest_head,
        lost_replies::the_answer_of_a_copy_is_not_believed,
        lost_replies::lost_answers_of_the_store_cost_nothing,
        takeover::uncommitted_segments_of_the_last_epoch_are_rolled_forward,
        takeover::segments_voided_by_an_adoption_stay_void,
        takeover::a_segment_with_another_predecessor_is_not_rolled_forward,
        takeover::a_damaged_segment_is_refused,
        takeover::the_record_stands_before_work_is_accepted,
        takeover::an_old_writer_is_not_told_no_before_the_record_stands,
        takeover::a_writer_learns_which_of_its_segments_were_rolled_forward,
        takeover::a_crash_between_adoption_and_record_is_harmless,
        takeover::an_epoch_issued_twice_is_refused,
        takeover::a_checkpoint_above_the_head_is_refused,
        watching::a_watch_has_neither_gaps_nor_repeats,
        watching::a_watch_from_an_old_position_catches_up,
        watching::followers_end_where_a_fresh_load_does,
        watching::a_follower_goes_on_across_a_fold,
        folding::a_fold_changes_nothing_but_the_start,
        folding::a_late_fold_does_not_move_the_start_back,
        folding::a_fold_survives_commits_made_meanwhile,
        folding::a_commit_in_flight_survives_a_fold,
        folding::a_lost_answer_of_a_fold_is_resolved,
        recovering::a_lost_head_is_rebuilt,
        recovering::the_old_history_is_fenced_and_forgotten,
        recovering::a_crash_between_any_two_writes_is_finished,
        recovering::of_two_recovers_at_once_one_wins,
        recovering::a_head_that_moves_is_not_replaced,
        recovering::a_sound_head_is_left_alone,
        recovering::whoever_follows_goes_over_to_the_new_history,
        recovering::a_damaged_checkpoint_is_passed_over,
        recovering::a_missing_link_is_a_refusal_that_names_it,
        groups::a_group_is_created_once,
        groups::an_unknown_group_is_said_to_be_unknown,
        groups::a_cursor_only_moves_on_unless_it_is_rewound,
        groups::of_many_who_commit_the_furthest_stands,
        groups::a_deleted_group_is_gone,
        groups::groups_survive_what_the_head_survives,
        groups::a_group_is_never_beyond_a_rebuilt_log,
        groups::an_edit_planned_with_groups_gives_way_to_one_that_needs_more,
        jobs::a_job_has_one_holder_and_its_commits_go_in,
        jobs::a_job_that_was_taken_away_commits_no_more,
        pins::a_pin_stops_the_floor_until_it_is_given_back,
        pins::a_version_below_the_floor_cannot_be_pinned,
        pins::the_floor_passes_a_pin_whose_lease_has_ended,
        pins::of_a_pin_and_a_floor_that_race_one_gives_way,
    );
}

/// A scenario's processes; see [`World`].
pub type Process = Database;

//! The state of a job in one consumer, in addition to the job's record.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    RECHECK_PAUSE,
    in_flight::Place,
    launch_throttle::Turn,
    shared_causes::{Kind, OwnByKind},
    slots::Slot,
};
use crate::aws::record_store::Stored;

/// Time for another consumer to start the task of an attempt that it has begun. After this time without a
/// change of the record, this consumer takes over.
const OTHERS_LAUNCH: Duration = Duration::from_secs(30);
/// The same if ECS has refused the attempt, or if it was taken over. It is more than the longest pause
/// between launches, and than [`CERTAIN_AFTER`].
const OTHERS_SLOW_LAUNCH: Duration = Duration::from_mins(15);
/// Minimum pause between two searches for the task of another consumer's launch.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Pause before the record of another consumer's slow launch is read again.
const SLOW_RECHECK_PAUSE: Duration = Duration::from_secs(30);
/// Time after which a RunTask call without a response has certainly started its task, or never will: more
/// than a call's timeout and the delay of ECS's lists together.
const CERTAIN_AFTER: Duration = Duration::from_mins(10);

/// Steps in a row whose calls failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailedSteps {
    pub(super) count: u32,
    pub(super) first: Instant,
    /// Time of the first failure since the cause was shared the last time.
    pub(super) own_since: Instant,
    pub(super) latest: Instant,
}

/// The state of a job in this consumer.
pub(super) struct AttemptContext<'a> {
    /// The permit for a task, within the limit of concurrent tasks.
    pub(super) slot: Option<Slot<'a>>,
    /// The place in flight.
    pub(super) place: &'a mut Place,
    /// Number of the attempt that this consumer began or took over. 0 if this consumer ended the job without
    /// an attempt.
    pub(super) begun: Option<u32>,
    /// Time since which a RunTask call with the attempt's token may have started a task unknown to this
    /// consumer.
    uncertain_since: Option<Instant>,
    /// Time at which the next task became needed, for the launch latency.
    pub(super) needed_since: Instant,
    /// Time of the record's latest read or write.
    pub(super) read_at: Instant,
    /// Time when this consumer launched the attempt's task or first found it.
    pub(super) watched_since: Instant,
    /// Whether a task of this job may run. Then the job keeps its slot.
    pub(super) has_task: bool,
    /// The attempt's number and refusals in the latest record. They make up the token of its launch.
    token: (u32, u32),
    /// Whether this consumer launched the attempt's task.
    pub(super) is_launched_here: bool,
    /// Number of refused launches of the attempt in this consumer.
    pub(super) refusals: u32,
    /// Whether a launch of this video has claimed a trial.
    pub(super) has_trial: bool,
    /// The pause before the next launch.
    pub(super) launch_pause: Option<Duration>,
    /// The failures of this video, as evidence.
    pub(super) own: OwnByKind,
    /// The steps in a row whose calls failed.
    pub(super) failed_steps: Option<FailedSteps>,
    /// Time when this consumer last looked for the task of another consumer's launch.
    looked_at: Option<Instant>,
    /// The record's latest ETag while another consumer works on the job, and the time when it was first seen.
    seen: Option<(String, Instant)>,
}

impl<'a> AttemptContext<'a> {
    pub(super) fn new(slot: Option<Slot<'a>>, place: &'a mut Place, received: Instant) -> Self {
        Self {
            slot,
            place,
            begun: None,
            uncertain_since: None,
            needed_since: received,
            read_at: received,
            watched_since: received,
            has_task: false,
            token: (0, 0),
            is_launched_here: false,
            refusals: 0,
            has_trial: false,
            launch_pause: None,
            own: OwnByKind::default(),
            failed_steps: None,
            looked_at: None,
            seen: None,
        }
    }

    /// Notes that this record was read or written now. If it has another token than before, no task of the
    /// former one can run: that attempt has ended, or its launch was certainly refused.
    pub(super) fn has_read(&mut self, stored: &Stored) {
        self.read_at = Instant::now();
        let token = stored.record.attempts.last().map_or((0, 0), |last| (last.number, last.refusals));
        if std::mem::replace(&mut self.token, token) != token {
            self.has_task = false;
            self.forget_token();
        }
    }

    /// Whether to look for the task of another consumer's launch now. Returns true at most once per
    /// [`LOOK_EVERY`].
    #[must_use]
    pub(super) fn may_look_for_task(&mut self) -> bool {
        let may_look = self.looked_at.is_none_or(|looked_at| looked_at.elapsed() >= LOOK_EVERY);
        if may_look {
            self.looked_at = Some(Instant::now());
        }
        may_look
    }

    /// The pause before the record of another consumer's job is read again.
    pub(super) fn recheck_pause(stored: &Stored) -> Duration {
        if is_slow(stored) { SLOW_RECHECK_PAUSE } else { RECHECK_PAUSE }
    }

    /// Gives the place in flight to another video, and the slot unless a task of this one may run.
    pub(super) fn give_place(&mut self) {
        if !self.has_task {
            self.slot = None;
        }
        self.place.leave();
    }

    /// The kind of the next launch. Uses the claimed trial up.
    pub(super) fn turn(&mut self) -> Turn {
        if std::mem::take(&mut self.has_trial) {
            Turn::Trial
        } else if self.own.has_failed() {
            Turn::Retry
        } else {
            Turn::NewUpload
        }
    }

    /// Begins an attempt that no consumer has tried to launch.
    pub(super) fn begin(&mut self, number: u32) {
        self.begun = Some(number);
        self.uncertain_since = None;
        (self.has_task, self.is_launched_here) = (false, false);
        (self.refusals, self.launch_pause) = (0, None);
        self.own.of_mut(Kind::Launch).begin_attempt();
    }

    /// Takes over the launch of an attempt, which another consumer may have completed. After failed calls,
    /// that can have been this consumer.
    pub(super) fn take_over(&mut self, number: u32) {
        let has_task = self.has_task;
        self.begin(number);
        self.has_task = has_task;
        self.may_have_launched();
    }

    /// Records that a task may have been started that this consumer does not know.
    pub(super) fn may_have_launched(&mut self) {
        self.uncertain_since = Some(Instant::now());
    }

    /// Whether a task may have been started that this consumer does not know.
    pub(super) const fn is_uncertain(&self) -> bool {
        self.uncertain_since.is_some()
    }

    /// Whether a refusal now means that no call with this token has started a task, or will.
    pub(super) fn is_refusal_certain(&self) -> bool {
        self.uncertain_since.is_none_or(|since| since.elapsed() >= CERTAIN_AFTER)
    }

    /// Begins a new token for the attempt.
    pub(super) fn forget_token(&mut self) {
        self.uncertain_since = None;
    }

    /// Whether another consumer began the attempt and is to launch it. False if the record has not changed
    /// for a while, by this consumer's clock. Then this consumer takes over.
    #[must_use]
    pub(super) fn is_anothers(&mut self, number: u32, stored: &Stored) -> bool {
        if self.begun == Some(number) {
            return false;
        }
        let patience = if is_slow(stored) { OTHERS_SLOW_LAUNCH } else { OTHERS_LAUNCH };
        match &self.seen {
            Some((etag, since)) if *etag == stored.etag => since.elapsed() < patience,
            _ => {
                self.seen = Some((stored.etag.clone(), Instant::now()));
                true
            }
        }
    }
}

/// Whether the launch of the latest attempt takes long: ECS has refused it, or it was taken over.
fn is_slow(stored: &Stored) -> bool {
    stored.record.attempts.last().is_some_and(|attempt| attempt.refusals > 0 || attempt.takeovers > 0)
}

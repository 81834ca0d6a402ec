//! Tells a cause that all videos share from the cause of a single video.
//!
//! The failure of one video says nothing about others. Failures of several videos in a row, without a success
//! of another video in between, indicate a shared cause. If a video fails, another one succeeds, and the
//! video fails again, the cause is its own. Then its failures no longer count as evidence.

use std::time::Duration;

use tokio::time::Instant;
use vidstreamx_job::Backoff;

/// Number of videos whose failures in a row indicate a shared cause.
const SEVERAL: u32 = 3;
/// A video that has failed so often after another one's success has a cause of its own, even if no success
/// shows that clearly.
const MOST_UNCLEAR: u8 = 5;
/// Without any success for this long, repeated failures of fewer videos indicate a shared cause, too.
const WITHOUT_SUCCESS: Duration = Duration::from_mins(5);

/// The failures of one kind since the last success.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Increases with the first success after failures.
    round: u32,
    /// Number of videos that failed in this round.
    videos: u32,
    first_failure: Option<Instant>,
    last_success: Option<Instant>,
    shared: Option<SharedCause>,
}

/// A cause that all videos share.
#[derive(Debug, Clone)]
pub(super) struct SharedCause {
    /// The reason of the latest failure.
    pub(super) reason: String,
    /// Whether an operator must act.
    pub(super) is_configuration: bool,
    /// The next trial may begin at this time.
    pub(super) until: Instant,
    /// Number of failures that lengthened the pause.
    pauses: u32,
    pause: Duration,
    /// Whether a trial has begun and has not failed yet.
    is_trying: bool,
}

/// A video's own failures of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct OwnFailures {
    /// The round of the latest failure; 0 if there was none.
    round: u32,
    /// Number of failures that came after another video's success.
    rounds: u8,
    /// Whether the cause is the video's own.
    is_alone: bool,
    /// Whether a success of another video shows this, and not only the number of failures.
    is_clear: bool,
}

impl OwnFailures {
    /// Whether the video has failed.
    pub(super) const fn has_failed(self) -> bool {
        self.round != 0
    }

    /// The round of the latest failure.
    pub(super) const fn round(self) -> u32 {
        self.round
    }

    /// Whether a success of another video shows that the cause is the video's own.
    pub(super) const fn is_clear(self) -> bool {
        self.is_clear
    }

    /// Begins an attempt that may not have the cause. Its failures are still no evidence.
    pub(super) const fn begin_attempt(&mut self) {
        self.is_clear = false;
    }

    /// Whether the cause is the video's own.
    pub(super) const fn is_alone(self) -> bool {
        self.is_alone
    }
}

/// A failure, as evidence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure<'a> {
    /// The reason, as a clause.
    pub(super) reason: &'a str,
    /// Whether an operator must act.
    pub(super) is_configuration: bool,
    /// Whether the cause may be shared although other videos have succeeded since the video's latest failure.
    pub(super) may_be_shared: bool,
    /// The pauses between trials, if the cause is shared.
    pub(super) backoff: Backoff,
}

impl Evidence {
    pub(super) const fn new() -> Self {
        Self { round: 1, videos: 0, first_failure: None, last_success: None, shared: None }
    }

    /// Counts a failure of a video. Returns the pause until the next trial if the failure begins or prolongs
    /// the pause of a shared cause.
    pub(super) fn failed(&mut self, failure: Failure<'_>, own: &mut OwnFailures) -> Option<Duration> {
        if own.has_failed() && own.round < self.round {
            own.rounds = own.rounds.saturating_add(1);
            own.is_clear |= !failure.may_be_shared;
            own.is_alone |= own.is_clear || own.rounds >= MOST_UNCLEAR;
        }
        if own.is_alone {
            own.round = self.round;
            return None;
        }
        if own.round != self.round {
            own.round = self.round;
            self.videos += 1;
        }
        let first = *self.first_failure.get_or_insert_with(Instant::now);
        if self.videos < SEVERAL && first.elapsed() < WITHOUT_SUCCESS {
            return None;
        }
        self.pause(failure)
    }

    /// Begins or prolongs the pause of a cause that is known to be shared. A failure within the pause changes
    /// nothing, because it began before the pause, unless a trial has begun.
    pub(super) fn pause(&mut self, failure: Failure<'_>) -> Option<Duration> {
        let Failure { reason, is_configuration, backoff, .. } = failure;
        let now = Instant::now();
        let shared = self.shared.get_or_insert_with(|| SharedCause {
            reason: String::new(),
            is_configuration,
            until: now,
            pauses: 0,
            pause: Duration::ZERO,
            is_trying: false,
        });
        reason.clone_into(&mut shared.reason);
        shared.is_configuration = is_configuration;
        if now < shared.until && !shared.is_trying {
            return None;
        }
        shared.is_trying = false;
        shared.pauses += 1;
        shared.pause = backoff.pause(shared.pauses);
        shared.until = now + shared.pause;
        Some(shared.pause)
    }

    /// Begins a trial. The next one waits for another pause, because a task's end can take longer than that.
    pub(super) fn begin_trial(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.is_trying = true;
            shared.until = shared.until.max(Instant::now() + shared.pause);
        }
    }

    /// Counts a success. Returns true if failures came before it.
    pub(super) fn succeeded(&mut self) -> bool {
        self.last_success = Some(Instant::now());
        let had_failures = self.first_failure.is_some() || self.shared.is_some();
        if had_failures {
            self.round += 1;
            (self.videos, self.first_failure, self.shared) = (0, None, None);
        }
        had_failures
    }

    /// Whether any success was counted after this time.
    pub(super) fn has_succeeded_since(&self, time: Instant) -> bool {
        self.last_success.is_some_and(|last| last > time)
    }

    /// Whether a success came after the latest failure of this video. A failure that another consumer saw
    /// counts as of the time `begun`.
    pub(super) fn has_succeeded_after(&self, own: OwnFailures, begun: Instant) -> bool {
        if !own.has_failed() { self.has_succeeded_since(begun) } else { own.round < self.round }
    }

    /// The current round.
    pub(super) const fn round(&self) -> u32 {
        self.round
    }

    pub(super) const fn shared(&self) -> Option<&SharedCause> {
        self.shared.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const FAILURE: Failure<'_> = Failure {
        reason: "no capacity",
        is_configuration: false,
        may_be_shared: false,
        backoff: Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(1) },
    };

    #[tokio::test(start_paused = true)]
    async fn only_several_videos_in_a_row_share_a_cause() {
        let mut evidence = Evidence::new();
        let mut videos = [OwnFailures::default(); 6];
        for _ in 0..10 {
            assert_eq!(evidence.failed(FAILURE, &mut videos[0]), None);
            assert_eq!(evidence.failed(FAILURE, &mut videos[1]), None);
        }
        assert!(evidence.succeeded() && evidence.shared().is_none());
        for video in &mut videos[2..4] {
            assert_eq!(evidence.failed(FAILURE, video), None);
        }
        assert!(evidence.failed(FAILURE, &mut videos[4]).is_some());
        assert_eq!(evidence.failed(FAILURE, &mut videos[5]), None, "within the pause");
        assert!(evidence.succeeded() && evidence.shared().is_none());
        assert!(!evidence.succeeded());
    }

    #[tokio::test(start_paused = true)]
    async fn a_video_that_fails_while_others_succeed_is_no_evidence() {
        let mut evidence = Evidence::new();
        let mut videos = [OwnFailures::default(); 5];
        for video in &mut videos {
            let _ = evidence.failed(FAILURE, video);
        }
        evidence.succeeded();
        for video in &mut videos {
            assert_eq!(evidence.failed(FAILURE, video), None);
            assert!(video.is_alone());
        }
        advance(WITHOUT_SUCCESS * 2).await;
        assert_eq!(evidence.failed(FAILURE, &mut videos[0]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_video_shares_its_cause_if_nothing_succeeds_for_long() {
        let mut evidence = Evidence::new();
        let mut video = OwnFailures::default();
        assert_eq!(evidence.failed(FAILURE, &mut video), None);
        advance(WITHOUT_SUCCESS).await;
        assert!(evidence.failed(FAILURE, &mut video).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_failed_trials_and_end_with_a_success() {
        let mut evidence = Evidence::new();
        let mut pauses = Vec::new();
        for n in 0..10 {
            let pause = evidence.failed(FAILURE, &mut OwnFailures::default());
            assert_eq!(pause.is_some(), n >= 2);
            pauses.extend(pause);
            advance(pause.unwrap_or_default()).await;
        }
        assert!(pauses[0] <= Duration::from_secs(2) && pauses[7] >= Duration::from_secs(30), "{pauses:?}");
        assert!(evidence.succeeded());
        for _ in 0..2 {
            assert_eq!(evidence.failed(FAILURE, &mut OwnFailures::default()), None);
        }
    }
}

//! The state machine of a job: derives the next step from the record, and changes the record when an attempt
//! begins or ends.
//!
//! All functions are pure, so consumers that read the same record take the same step.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use vidstreamx_job::{Attempt, Capacity, Record, Size, State};

use super::task_outcome::{Cause, Classified, TaskOutcome, launch_refused, stop_outcome};
use crate::{aws::ecs::Stopped, sizing};

/// The policy for a job's attempts.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Maximum number of attempts that count, see [`Cause::counts`].
    pub max_attempts: u32,
    /// Capacity of the tasks. After repeated interruptions, a job moves from Spot to on-demand.
    pub capacity: Capacity,
}

/// A job fails if for this long, in at least this many attempts in a row, every task fails to start or ends
/// with 78.
const FRUITLESS: (Duration, usize) = (Duration::from_hours(24), 6);

/// An attempt ends if ECS refuses its launches for this long, while it accepts those of others.
const REFUSED_FOR: Duration = Duration::from_hours(8);
/// An attempt ends if ECS refuses all launches for this long.
const ALL_REFUSED_FOR: Duration = Duration::from_hours(24);
/// Number of refusals of an attempt after which the job tries a smaller size, if its size is the cause.
pub(super) const REFUSALS_OF_A_SIZE: u32 = 5;

/// The circumstances of a refused launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    /// Whether ECS refuses only this size, and has refused it several times.
    pub(super) is_size_the_cause: bool,
    /// Whether ECS has accepted launches of others since this attempt became due.
    pub(super) accepts_others: bool,
    /// Whether a setting or permission is wrong. Then no attempt ends.
    pub(super) is_configuration: bool,
}

/// The reason of a cancelled job.
pub(super) const CANCELLED: &str = "cancelled by an operator";

/// Number of interruptions after which a job moves to on-demand capacity.
const SPOT_INTERRUPTIONS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) enum NextStep {
    /// The job has ended.
    Finish,
    /// Begin the next attempt, `pause` after `since`.
    Begin { since: Timestamp, pause: Duration },
    /// Start the attempt's task, or find it if a consumer started it and crashed before it wrote the record.
    Launch { number: u32 },
    /// End the job, which an operator has cancelled and which has no task.
    Cancel,
    /// Wait for the end of the attempt's task.
    Watch { number: u32, arn: Arc<str> },
}

pub(super) fn next_step(record: &Record) -> NextStep {
    if record.state.is_end() {
        return NextStep::Finish;
    }
    match record.attempts.last() {
        None | Some(Attempt { ended_at: Some(_), .. }) if record.cancel_requested_at.is_some() => {
            NextStep::Cancel
        }
        None => NextStep::Begin { since: record.created_at, pause: Duration::ZERO },
        Some(Attempt { ended_at: Some(ended_at), .. }) => {
            NextStep::Begin { since: *ended_at, pause: pause(record) }
        }
        Some(Attempt { task_arn: Some(arn), number, .. }) => {
            NextStep::Watch { number: *number, arn: arn.as_str().into() }
        }
        Some(Attempt { number, .. }) => NextStep::Launch { number: *number },
    }
}

/// The size of the next attempt's task, and the reason for it; `None` if no earlier attempt has a size.
#[must_use]
pub(super) fn next_size(record: &Record) -> Option<(Size, String)> {
    let last = record.attempts.last()?;
    let (size, reason) = (last.size?, last.size_reason.clone().unwrap_or_default());
    match cause_of(last) {
        _ if last.ended_at.is_none() => return Some((size, reason)),
        Cause::Refused => {
            let vcpus = f64::from(size.cpu) / 1024.0;
            let reason = format!("ECS refused a task with {vcpus} vCPU");
            return Some((sizing::smaller(size).unwrap_or(size), reason));
        }
        Cause::OutOfMemory => {}
        _ => return Some((size, reason)),
    }
    let reason = format!("out of memory with {} GiB", f64::from(size.memory_mib) / 1024.0);
    Some(match sizing::larger(size) {
        Some(larger) => (larger, reason),
        None => (size, format!("{reason}, and Fargate has no more")),
    })
}

/// Adds an attempt to the record. Returns its number.
pub(super) fn begin_attempt(
    record: &mut Record,
    (size, size_reason): (Size, String),
    now: Timestamp,
    policy: &Policy,
) -> u32 {
    let number = record.attempts.last().map_or(1, |attempt| attempt.number + 1);
    let mut attempt = Attempt::new(number, now);
    attempt.capacity = Some(next_capacity(record, policy));
    attempt.size = Some(size);
    attempt.size_reason = Some(size_reason);
    record.updated_at = now;
    // Most jobs have one attempt. A push to an empty vector would allocate space for four.
    record.attempts.reserve_exact(1);
    record.attempts.push(attempt);
    number
}

/// Records the end of the attempt, and the end of the job if this was its last attempt.
pub(super) fn end_attempt(record: &mut Record, classified: Classified, now: Timestamp, policy: &Policy) {
    let Classified { outcome, stopped, reason, counts } = classified;
    if let Some(attempt) = record.attempts.last_mut() {
        attempt.ended_at = Some(now);
        attempt.billed_seconds = stopped.billed.map(|billed| billed.as_secs_f64());
        attempt.exit_code = stopped.exit_code;
        attempt.stop_code = stopped.stop_code;
        attempt.reason = reason.clone();
        attempt.counts = counts;
    }
    let counted = record.current_attempts().iter().filter(|attempt| attempt.counts).count();
    let is_fruitless = is_fruitless(record.current_attempts(), now);
    record.state = match outcome {
        TaskOutcome::Done => State::Done,
        TaskOutcome::Rejected => State::Rejected,
        TaskOutcome::Obsolete => State::Obsolete,
        TaskOutcome::Cancelled => State::Cancelled,
        TaskOutcome::Retry(_) if record.cancel_requested_at.is_some() => State::Cancelled,
        TaskOutcome::Retry(_) if counts && counted >= policy.max_attempts as usize => State::Failed,
        TaskOutcome::Retry(_) if is_fruitless => State::Failed,
        TaskOutcome::Retry(_) => State::Running,
    };
    record.reason = match record.state {
        State::Running | State::Done => None,
        State::Rejected => Some(reason.unwrap_or_else(|| "the input is not a usable video".to_owned())),
        State::Obsolete => Some(reason.unwrap_or_else(|| "the source was deleted or replaced".to_owned())),
        State::Cancelled if record.cancel_requested_at.is_some() => Some(CANCELLED.to_owned()),
        State::Cancelled => Some(reason.unwrap_or_else(|| "the task was stopped by an operator".to_owned())),
        State::Failed => {
            let last = reason.unwrap_or_else(|| "the task gave no reason".to_owned());
            Some(if counted >= policy.max_attempts as usize {
                format!("all {counted} attempts failed, the last one: {last}")
            } else {
                let hours = FRUITLESS.0.as_secs() / 3600;
                format!("no task has worked for {hours} hours, the last one: {last}")
            })
        }
    };
    record.updated_at = now;
}

/// Ends a job without a task because an operator cancelled it.
pub(super) fn cancel(record: &mut Record, now: Timestamp) {
    record.state = State::Cancelled;
    record.reason = Some(CANCELLED.to_owned());
    record.updated_at = now;
}

/// Whether the latest attempts in a row failed for causes that may be everybody's, for so long that an
/// operator must look at this video.
fn is_fruitless(attempts: &[Attempt], now: Timestamp) -> bool {
    let (time, number) = FRUITLESS;
    let fails = |attempt: &&Attempt| matches!(cause_of(attempt), Cause::Misconfigured | Cause::NotStarted);
    let in_a_row = attempts.iter().rev().take_while(fails).count();
    let first = attempts.get(attempts.len() - in_a_row);
    let since = first.map(|first| now.duration_since(first.started_at));
    in_a_row >= number && since.is_some_and(|since| since.unsigned_abs() >= time)
}

/// The end of an attempt whose launches ECS refuses. If the size is the cause, the next attempt has a smaller
/// size after a few refusals. Otherwise the attempt ends after hours. `None` if the attempt goes on.
pub(super) fn refused(
    attempt: &Attempt,
    reason: String,
    refusal: Refusal,
    now: Timestamp,
) -> Option<Classified> {
    let has_smaller = attempt.size.and_then(sizing::smaller).is_some();
    let limit = if refusal.accepts_others { REFUSED_FOR } else { ALL_REFUSED_FOR };
    let has_waited = now.duration_since(attempt.started_at).unsigned_abs() >= limit;
    let is_too_large = has_smaller && refusal.is_size_the_cause;
    (!refusal.is_configuration && (has_waited || is_too_large)).then(|| launch_refused(reason, has_smaller))
}

fn next_capacity(record: &Record, policy: &Policy) -> Capacity {
    let causes = record.current_attempts().iter().map(cause_of);
    if causes.filter(|cause| *cause == Cause::Interrupted).count() >= SPOT_INTERRUPTIONS {
        Capacity::OnDemand
    } else {
        policy.capacity
    }
}

/// The cause of an attempt's end.
pub(super) fn cause_of(attempt: &Attempt) -> Cause {
    let is_cancelled = attempt.stop_code.is_some();
    if attempt.task_arn.is_none() && attempt.refusals > 0 && !attempt.counts && !is_cancelled {
        return Cause::Refused;
    }
    let stopped = Stopped {
        billed: None,
        exit_code: attempt.exit_code,
        stop_code: attempt.stop_code.clone(),
        reason: attempt.reason.clone(),
    };
    match stop_outcome(&stopped) {
        TaskOutcome::Retry(cause) => cause,
        // The exit code is final, but the job continued, so the report contradicted the exit code.
        TaskOutcome::Done | TaskOutcome::Rejected | TaskOutcome::Obsolete | TaskOutcome::Cancelled => {
            Cause::Crashed
        }
    }
}

/// The pause before the next attempt. It doubles with each consecutive attempt that ended for the same cause.
/// The job's id varies it by a fifth, so jobs that failed together do not retry together, and all consumers
/// compute the same pause.
fn pause(record: &Record) -> Duration {
    let attempts = record.current_attempts();
    let Some(cause) = attempts.last().map(cause_of) else { return Duration::ZERO };
    let in_a_row = attempts.iter().rev().take_while(|attempt| cause_of(attempt) == cause).count();
    let (first, longest) = match cause {
        Cause::Interrupted | Cause::OutOfMemory | Cause::Refused => return Duration::ZERO,
        Cause::Transient | Cause::Crashed => (Duration::from_secs(10), Duration::from_mins(5)),
        // These pauses end early when the tasks of other videos work again.
        Cause::NotStarted => (Duration::from_secs(15), Duration::from_mins(30)),
        Cause::Misconfigured => (Duration::from_mins(5), Duration::from_hours(8)),
    };
    let doublings = u32::try_from(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let pause = first.saturating_mul(1 << doublings).min(longest);
    let hash = record.job_id.as_str().bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    pause.mul_f64(0.8 + 0.4 * f64::from(hash % 1000) / 1000.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vidstreamx_job::{Outcome, Restart};

    use super::*;
    use crate::fixtures::{record, report};
    use crate::reconcile::{task_outcome::classify, task_watcher::TaskEnd};

    const EXITED: &str = "EssentialContainerExited";
    const SIZE: Size = Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 };
    const POLICY: Policy = Policy { max_attempts: 3, capacity: Capacity::Spot };

    fn begin(record: &mut Record) -> u32 {
        let NextStep::Begin { since, pause } = next_step(record) else { panic!("{record:?}") };
        let sized = next_size(record).unwrap_or((SIZE, String::new()));
        begin_attempt(record, sized, since + pause, &POLICY)
    }

    fn end(record: &mut Record, exit_code: Option<i32>, stop_code: &str, reason: &str) {
        let report = report(Outcome::Complete);
        let stopped = Stopped {
            billed: None,
            exit_code,
            stop_code: Some(stop_code.into()),
            reason: Some(reason.into()),
        };
        let now = record.attempts.last().unwrap().started_at;
        end_attempt(record, classify(TaskEnd::Stopped(stopped), Some(&report)), now, &POLICY);
    }

    fn next_pause(record: &Record) -> Duration {
        let NextStep::Begin { pause, .. } = next_step(record) else { panic!("{record:?}") };
        pause
    }

    #[test]
    fn the_next_step_follows_from_the_record() {
        let mut record = record();
        assert_eq!(begin(&mut record), 1);
        assert_eq!(next_step(&record), NextStep::Launch { number: 1 });
        record.attempts[0].task_arn = Some("arn".into());
        assert_eq!(next_step(&record), NextStep::Watch { number: 1, arn: "arn".into() });
        end(&mut record, Some(0), EXITED, "");
        assert_eq!((next_step(&record), record.state), (NextStep::Finish, State::Done));
    }

    #[test]
    fn pauses_grow_until_the_last_attempt() {
        let mut record = record();
        let mut pauses = Vec::new();
        for _ in 0..2 {
            begin(&mut record);
            end(&mut record, Some(75), EXITED, "S3 said 503");
            pauses.push(next_pause(&record).as_secs_f64());
        }
        assert!((8.0..=12.0).contains(&pauses[0]), "{pauses:?}");
        assert!((pauses[1] / pauses[0] - 2.0).abs() < 0.01, "{pauses:?}");
        begin(&mut record);
        end(&mut record, Some(75), EXITED, "S3 said 503");
        assert_eq!(record.state, State::Failed);
        assert_eq!(record.reason.as_deref(), Some("all 3 attempts failed, the last one: S3 said 503"));
    }

    #[test]
    fn interruptions_do_not_count_and_lead_to_on_demand_capacity() {
        let mut record = record();
        for interruption in 0..5 {
            let capacity = if interruption < 2 { Capacity::Spot } else { Capacity::OnDemand };
            assert_eq!(next_capacity(&record, &POLICY), capacity);
            assert_eq!(begin(&mut record), interruption + 1);
            end(&mut record, Some(143), "SpotInterruption", "");
            assert_eq!((record.state, next_pause(&record)), (State::Running, Duration::ZERO));
        }
    }

    #[test]
    fn causes_other_than_the_video_lengthen_the_pause_and_fail_the_job_only_after_a_day() {
        for (exit_code, stop_code, longest) in [(None, "TaskFailedToStart", 30), (Some(78), EXITED, 480)] {
            let mut record = record();
            let mut pauses = Vec::new();
            while record.state == State::Running {
                if !record.attempts.is_empty() {
                    pauses.push(next_pause(&record).as_secs_f64() / 60.0);
                }
                begin(&mut record);
                end(&mut record, exit_code, stop_code, "wrong role");
            }
            let longest_pause = pauses.iter().copied().fold(0.0, f64::max);
            assert!((0.8..=1.2).contains(&(longest_pause / f64::from(longest))), "{pauses:?}");
            assert!((24.0 * 60.0..40.0 * 60.0).contains(&pauses.iter().sum()), "{pauses:?}");
            let reason = record.reason.unwrap();
            assert_eq!(reason, "no task has worked for 24 hours, the last one: wrong role");
        }
    }

    #[test]
    fn a_job_that_ecs_refuses_for_its_size_goes_on_with_a_smaller_one() {
        let mut record = record();
        let mut sizes = Vec::new();
        while record.state == State::Running {
            begin(&mut record);
            let attempt = record.attempts.last_mut().unwrap();
            let size = attempt.size.unwrap();
            sizes.push((size.cpu, size.memory_mib));
            let mut now = attempt.started_at;
            let ended = loop {
                attempt.refusals += 1;
                let is_size_the_cause = attempt.refusals >= REFUSALS_OF_A_SIZE;
                let refusal = Refusal { is_size_the_cause, accepts_others: true, is_configuration: false };
                match refused(attempt, "quota".into(), refusal, now) {
                    Some(ended) => break ended,
                    None => now += Duration::from_mins(1),
                }
            };
            end_attempt(&mut record, ended, now, &POLICY);
        }
        assert_eq!(sizes, [(4096, 8192), (2048, 8192), (1024, 8192), (1024, 8192), (1024, 8192)]);
        assert_eq!(record.reason.as_deref(), Some("all 3 attempts failed, the last one: quota"));
    }

    #[test]
    fn only_out_of_memory_leads_to_a_larger_task() {
        let mut record = record();
        let mut memories = Vec::new();
        for (exit_code, stop_code) in [(137, EXITED), (143, "SpotInterruption"), (75, EXITED), (137, EXITED)]
        {
            begin(&mut record);
            memories.push(record.attempts.last().unwrap().size.unwrap().memory_mib);
            end(&mut record, Some(exit_code), stop_code, "");
        }
        assert_eq!(memories[0], SIZE.memory_mib);
        assert!(memories[1] > memories[0], "{memories:?}");
        assert_eq!(memories[1..], [memories[1]; 3]);
        let (larger, reason) = next_size(&record).unwrap();
        assert!(larger.memory_mib > memories[3] && reason.starts_with("out of memory with "), "{reason}");
    }

    #[test]
    fn a_restarted_job_has_all_attempts_again_and_no_pause() {
        let mut record = record();
        for _ in 0..3 {
            begin(&mut record);
            end(&mut record, Some(75), EXITED, "");
        }
        assert_eq!(record.state, State::Failed);
        record.state = State::Running;
        record.restarts.push(Restart { at: record.updated_at, after_attempt: 3, request: "force-1".into() });
        assert_eq!(next_pause(&record), Duration::ZERO);
        for number in 4..=6 {
            assert_eq!(begin(&mut record), number);
            end(&mut record, Some(75), EXITED, "");
        }
        assert_eq!(record.state, State::Failed);
        assert!(record.reason.unwrap().starts_with("all 3 attempts failed"));
    }

    proptest! {
        #[test]
        fn a_job_never_counts_more_attempts_than_allowed(
            ends in prop::collection::vec(prop_oneof![
                Just((Some(75), EXITED)), Just((Some(137), EXITED)), Just((Some(143), "SpotInterruption")),
                Just((None, "TaskFailedToStart")), Just((Some(1), EXITED)),
            ], 1..40),
        ) {
            let mut record = record();
            for (exit_code, stop_code) in ends {
                if record.state.is_end() {
                    break;
                }
                let number = begin(&mut record);
                prop_assert_eq!(number as usize, record.attempts.len());
                end(&mut record, exit_code, stop_code, "");
            }
            let counted = record.current_attempts().iter().filter(|attempt| attempt.counts).count();
            prop_assert!(counted <= 3);
            prop_assert_eq!(record.state == State::Failed, counted == 3);
        }
    }
}

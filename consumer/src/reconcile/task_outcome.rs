//! What a task's end means, and what the job's record says is to be done next. Both are pure, so that
//! every consumer that reads the same record comes to the same answer.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use vidstreamx_job::{Attempt, Capacity, Exit, Outcome, Record, Report, Size, State};

use crate::{aws::ecs::Stopped, reconcile::task_watcher::TaskEnd, sizing};

/// What the end of a task means for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum TaskOutcome {
    /// The task says the stream is published; its report has to agree.
    Done,
    /// The upload is not a usable video.
    Rejected,
    /// The source is gone or was replaced.
    Obsolete,
    /// Nothing is decided about the video yet.
    Retry(Cause),
}

/// Why a task ended without an answer about the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Storage, network or disk.
    Transient,
    /// A wrong setting or permission: every job would end like this.
    Misconfigured,
    /// The task was too small.
    OutOfMemory,
    /// AWS took the capacity back, or its machine broke.
    Interrupted,
    /// The task never ran: image, network interface, role.
    NotStarted,
    /// A bug, a crash, or a person's StopTask.
    Crashed,
}

impl Cause {
    /// Whether an end like this uses up one of the job's attempts: only where the video itself may be
    /// why. A wrong image or a Spot interruption must not fail a good video.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Transient | Self::OutOfMemory | Self::Crashed)
    }

    /// First and longest wait before the next attempt.
    const fn waits(self) -> (Duration, Duration) {
        match self {
            Self::Interrupted | Self::OutOfMemory => (Duration::ZERO, Duration::ZERO),
            Self::Transient | Self::Crashed => (Duration::from_secs(10), Duration::from_mins(5)),
            Self::NotStarted => (Duration::from_secs(15), Duration::from_mins(5)),
            Self::Misconfigured => (Duration::from_mins(5), Duration::from_mins(30)),
        }
    }
}

/// The table "What the task's end means" of docs/ARCHITECTURE.md.
pub fn verdict(end: &Stopped) -> TaskOutcome {
    let exit = end.exit_code.map(|code| (code, Exit::from_code(code)));
    // An answer about the video stands, also when the task was interrupted right after giving it.
    match exit {
        Some((_, Some(Exit::Done))) => return TaskOutcome::Done,
        Some((_, Some(Exit::Unusable))) => return TaskOutcome::Rejected,
        Some((_, Some(Exit::Obsolete))) => return TaskOutcome::Obsolete,
        _ => {}
    }
    let cause = match end.stop_code.as_deref() {
        Some("SpotInterruption" | "TerminationNotice" | "InfrastructureHealth") => Cause::Interrupted,
        // Ends with 143 like an interruption, but a person who stops a video again and again means it.
        Some("UserInitiated") => Cause::Crashed,
        Some("TaskFailedToStart") => Cause::NotStarted,
        _ => match exit {
            Some((_, Some(Exit::Terminated))) => Cause::Interrupted,
            Some((_, Some(Exit::Transient))) => Cause::Transient,
            Some((_, Some(Exit::Misconfigured))) => Cause::Misconfigured,
            Some((_, Some(Exit::OutOfMemory))) => Cause::OutOfMemory,
            _ if end.reason.as_deref().is_some_and(|reason| reason.contains("OutOfMemory")) => {
                Cause::OutOfMemory
            }
            _ => Cause::Crashed,
        },
    };
    TaskOutcome::Retry(cause)
}

/// How often a job is tried, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Counting attempts before a job is failed.
    pub max_attempts: u32,
    /// What to run on, as long as AWS does not interrupt too often.
    pub capacity: Capacity,
}

/// Interruptions after which a job goes on on-demand.
const SPOT_PATIENCE: usize = 2;

/// What a job's record says is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Nothing: the job has ended.
    Ended,
    /// Begin another attempt.
    Begin {
        /// When the wait began.
        since: Timestamp,
        /// How long to wait.
        pause: Duration,
    },
    /// Start the attempt's task, or find it: whoever began the attempt may have died in between.
    Launch {
        /// The attempt.
        number: u32,
    },
    /// Wait for the task's end.
    Watch {
        /// The attempt.
        number: u32,
        /// The task.
        arn: Arc<str>,
    },
}

/// Reads the next step from a record.
pub fn next(record: &Record) -> Next {
    if record.state.is_end() {
        return Next::Ended;
    }
    match record.attempts.last() {
        None => Next::Begin { since: record.created_at, pause: Duration::ZERO },
        Some(Attempt { ended_at: Some(ended_at), .. }) => {
            Next::Begin { since: *ended_at, pause: pause(record) }
        }
        Some(Attempt { task_arn: Some(arn), number, .. }) => {
            Next::Watch { number: *number, arn: arn.as_str().into() }
        }
        Some(Attempt { number, .. }) => Next::Launch { number: *number },
    }
}

/// What the next attempt runs on.
#[must_use]
pub fn next_capacity(record: &Record, policy: &Policy) -> Capacity {
    let interruptions = record.current_attempts().iter().map(cause_of);
    if interruptions.filter(|cause| *cause == Cause::Interrupted).count() >= SPOT_PATIENCE {
        Capacity::OnDemand
    } else {
        policy.capacity
    }
}

/// What the next attempt's task gets, and why; `None` if no attempt before it says.
#[must_use]
pub fn next_size(record: &Record) -> Option<(Size, String)> {
    let last = record.attempts.last()?;
    let (size, why) = (last.size?, last.size_reason.clone().unwrap_or_default());
    if last.ended_at.is_none() || cause_of(last) != Cause::OutOfMemory {
        return Some((size, why));
    }
    let reason = format!("out of memory with {} GiB", f64::from(size.memory_mib) / 1024.0);
    Some(match sizing::larger(size) {
        Some(larger) => (larger, reason),
        None => (size, format!("{reason}, and Fargate has no more")),
    })
}

/// What an attempt left behind, in the words of a task's end.
fn end_of(attempt: &Attempt) -> Stopped {
    Stopped {
        billed: None,
        exit_code: attempt.exit_code,
        stop_code: attempt.stop_code.clone(),
        reason: attempt.reason.clone(),
    }
}

fn cause_of(attempt: &Attempt) -> Cause {
    match verdict(&end_of(attempt)) {
        TaskOutcome::Retry(cause) => cause,
        // Contradicted by the report, else there would be no next attempt.
        TaskOutcome::Done | TaskOutcome::Rejected | TaskOutcome::Obsolete => Cause::Crashed,
    }
}

/// The wait before the next attempt: doubled for every attempt in a row that ended the same way, and
/// spread by the job's id, so that jobs that failed together do not come back together.
fn pause(record: &Record) -> Duration {
    let attempts = record.current_attempts();
    let Some(cause) = attempts.last().map(cause_of) else { return Duration::ZERO };
    let in_a_row = attempts.iter().rev().take_while(|attempt| cause_of(attempt) == cause).count();
    let (first, longest) = cause.waits();
    let doublings = u32::try_from(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let pause = first.saturating_mul(1 << doublings).min(longest);
    let spread =
        record.job_id.as_str().bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    pause.mul_f64(0.8 + 0.4 * f64::from(spread % 1000) / 1000.0)
}

/// A task's end together with what its report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// What it means.
    pub verdict: TaskOutcome,
    /// What ECS says.
    pub stopped: Stopped,
    /// One sentence for people: the task's own, else ECS's.
    pub reason: Option<String>,
}

/// Puts a task's end and its report together: a task is done only when its report says so too, and one
/// that ECS has forgotten is judged by its report alone.
#[must_use]
pub fn classify(end: TaskEnd, report: Option<&Report>) -> Classified {
    let outcome = report.map(|report| report.outcome);
    let told = report.and_then(|report| report.reason.clone()).filter(|reason| !reason.is_empty());
    let stopped = match end {
        TaskEnd::Stopped(stopped) => stopped,
        TaskEnd::Vanished => {
            let verdict = match outcome {
                Some(Outcome::Complete) => TaskOutcome::Done,
                Some(Outcome::Rejected) => TaskOutcome::Rejected,
                Some(Outcome::Obsolete) => TaskOutcome::Obsolete,
                Some(Outcome::Failed) => TaskOutcome::Retry(Cause::Crashed),
                // Nobody looked in time, for which the video can do nothing.
                None => TaskOutcome::Retry(Cause::Interrupted),
            };
            let forgotten = match outcome {
                Some(_) => "ECS has forgotten the task; this is by its report",
                None => "ECS has forgotten the task, and it left no report",
            };
            let reason = told.or_else(|| Some(forgotten.to_owned()));
            let billed = report
                .filter(|_| !matches!(verdict, TaskOutcome::Retry(_)))
                .and_then(|report| Duration::try_from_secs_f64(report.timings.total_seconds).ok());
            return Classified { verdict, stopped: Stopped { billed, ..Stopped::default() }, reason };
        }
    };
    let verdict = verdict(&stopped);
    if verdict == TaskOutcome::Done && outcome != Some(Outcome::Complete) {
        let reason = Some("the task ended with exit code 0, but without a complete report".to_owned());
        return Classified { verdict: TaskOutcome::Retry(Cause::Crashed), stopped, reason };
    }
    // A report of another outcome is an earlier attempt's.
    let exit = stopped.exit_code.and_then(Exit::from_code);
    let told = told.filter(|_| exit.map(Outcome::from) == outcome);
    let reason = told.or_else(|| stopped.reason.clone());
    Classified { verdict, stopped, reason }
}

/// An attempt that ECS refused for what its request says about this very job: the video is why.
#[must_use]
pub fn refused(reason: String) -> Classified {
    Classified {
        verdict: TaskOutcome::Retry(Cause::Crashed),
        stopped: Stopped::default(),
        reason: Some(reason),
    }
}

/// Notes an attempt's end in the record, and the job's if this is it.
pub fn conclude(record: &mut Record, classified: Classified, now: Timestamp, policy: &Policy) {
    let Classified { verdict, stopped, reason } = classified;
    let counts = matches!(verdict, TaskOutcome::Retry(cause) if cause.counts());
    if let Some(attempt) = record.attempts.last_mut() {
        attempt.ended_at = Some(now);
        attempt.billed_seconds = stopped.billed.map(|billed| billed.as_secs_f64());
        attempt.exit_code = stopped.exit_code;
        attempt.stop_code = stopped.stop_code;
        attempt.reason = reason.clone();
        attempt.counts = counts;
    }
    let counted = record.current_attempts().iter().filter(|attempt| attempt.counts).count();
    record.state = match verdict {
        TaskOutcome::Done => State::Done,
        TaskOutcome::Rejected => State::Rejected,
        TaskOutcome::Obsolete => State::Obsolete,
        TaskOutcome::Retry(_) if counts && counted >= policy.max_attempts as usize => State::Failed,
        TaskOutcome::Retry(_) => State::Running,
    };
    record.reason = match record.state {
        State::Running | State::Done => None,
        State::Rejected => Some(reason.unwrap_or_else(|| "the input is not a usable video".to_owned())),
        State::Obsolete => Some(reason.unwrap_or_else(|| "the source is gone or was replaced".to_owned())),
        State::Failed => {
            let why = reason.unwrap_or_else(|| "the task did not say why".to_owned());
            Some(format!("all {counted} attempts failed, the last one: {why}"))
        }
    };
    record.updated_at = now;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vidstreamx_job::{Job, Restart, Source};

    use super::*;

    fn stopped(exit_code: Option<i32>, stop_code: &str, reason: &str) -> Stopped {
        Stopped { billed: None, exit_code, stop_code: Some(stop_code.into()), reason: Some(reason.into()) }
    }

    #[test]
    fn the_table() {
        use Cause::*;
        use TaskOutcome::*;
        let exited = "EssentialContainerExited";
        for (exit_code, stop_code, reason, expected) in [
            (Some(0), exited, "", Done),
            (Some(0), "SpotInterruption", "", Done),
            (Some(65), exited, "", Rejected),
            (Some(66), exited, "", Obsolete),
            (Some(66), "TerminationNotice", "", Obsolete),
            (Some(75), exited, "", Retry(Transient)),
            (Some(78), exited, "", Retry(Misconfigured)),
            (Some(137), exited, "", Retry(OutOfMemory)),
            (Some(1), exited, "OutOfMemoryError: container killed", Retry(OutOfMemory)),
            (Some(137), "SpotInterruption", "", Retry(Interrupted)),
            (Some(143), exited, "", Retry(Interrupted)),
            (Some(143), "TerminationNotice", "", Retry(Interrupted)),
            (None, "InfrastructureHealth", "", Retry(Interrupted)),
            (Some(143), "UserInitiated", "", Retry(Crashed)),
            (None, "TaskFailedToStart", "CannotPullContainerError", Retry(NotStarted)),
            (Some(70), exited, "", Retry(Crashed)),
            (Some(101), exited, "", Retry(Crashed)),
            (None, exited, "", Retry(Crashed)),
            (None, "SomethingNew", "", Retry(Crashed)),
        ] {
            assert_eq!(
                verdict(&stopped(exit_code, stop_code, reason)),
                expected,
                "{exit_code:?} {stop_code}"
            );
        }
    }

    fn report() -> Report {
        let json = r#"{
            "schema": 1, "job_id": "0123456789abcdef0123456789abcdef", "outcome": "complete",
            "timings": {"started_at": "2026-05-04T09:12:33Z", "finished_at": "2026-05-04T09:13:33Z",
                        "total_seconds": 60.0}
        }"#;
        Report::parse(json.as_bytes()).unwrap()
    }

    fn report_of(outcome: Outcome, reason: &str) -> Report {
        Report { outcome, reason: Some(reason.to_owned()), ..report() }
    }

    #[test]
    fn exit_code_0_needs_a_complete_report() {
        let end = TaskEnd::Stopped(stopped(Some(0), "EssentialContainerExited", "exited"));
        assert_eq!(classify(end.clone(), Some(&report())).verdict, TaskOutcome::Done);
        for report in [None, Some(report_of(Outcome::Failed, "old"))] {
            let classified = classify(end.clone(), report.as_ref());
            assert_eq!(classified.verdict, TaskOutcome::Retry(Cause::Crashed));
            assert!(classified.reason.unwrap().contains("without a complete report"));
        }
    }

    #[test]
    fn the_tasks_own_reason_is_preferred_unless_it_is_about_something_else() {
        for (code, outcome, reason) in [
            (65, Outcome::Rejected, "told"),
            (66, Outcome::Rejected, "ecs"),
            (75, Outcome::Failed, "told"),
            (101, Outcome::Failed, "ecs"),
        ] {
            let end = TaskEnd::Stopped(stopped(Some(code), "EssentialContainerExited", "ecs"));
            let classified = classify(end, Some(&report_of(outcome, "told")));
            assert_eq!(classified.reason.as_deref(), Some(reason), "{code}");
        }
    }

    #[test]
    fn a_forgotten_task_is_judged_by_its_report() {
        for (outcome, verdict) in [
            (Outcome::Complete, TaskOutcome::Done),
            (Outcome::Rejected, TaskOutcome::Rejected),
            (Outcome::Obsolete, TaskOutcome::Obsolete),
            (Outcome::Failed, TaskOutcome::Retry(Cause::Crashed)),
        ] {
            assert_eq!(classify(TaskEnd::Vanished, Some(&report_of(outcome, ""))).verdict, verdict);
        }
        assert_eq!(classify(TaskEnd::Vanished, None).verdict, TaskOutcome::Retry(Cause::Interrupted));
    }

    const SIZE: Size = Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 };
    const POLICY: Policy = Policy { max_attempts: 3, capacity: Capacity::Spot };

    fn record() -> Record {
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: "a.mp4".parse().unwrap(),
            version_id: None,
            etag: Some("e".into()),
            size: None,
        };
        let job = Job::new(source, "streams".parse().unwrap(), "default".into());
        Record::new(&job, Timestamp::UNIX_EPOCH)
    }

    fn begin(record: &mut Record) -> u32 {
        let Next::Begin { since, pause } = next(record) else { panic!("{record:?}") };
        let number = u32::try_from(record.attempts.len()).unwrap() + 1;
        let mut attempt = Attempt::new(number, since + pause);
        attempt.capacity = Some(next_capacity(record, &POLICY));
        attempt.size = next_size(record).map(|(size, _)| size).or(Some(SIZE));
        record.attempts.push(attempt);
        number
    }

    fn end(record: &mut Record, end: &Stopped) {
        let now = record.attempts.last().unwrap().started_at;
        conclude(record, classify(TaskEnd::Stopped(end.clone()), Some(&report())), now, &POLICY);
    }

    fn wait(record: &Record) -> Duration {
        let Next::Begin { pause, .. } = next(record) else { panic!("{record:?}") };
        pause
    }

    #[test]
    fn a_job_goes_from_step_to_step() {
        let mut record = record();
        assert_eq!(begin(&mut record), 1);
        assert_eq!(next(&record), Next::Launch { number: 1 });
        record.attempts[0].task_arn = Some("arn".into());
        assert_eq!(next(&record), Next::Watch { number: 1, arn: "arn".into() });
        end(&mut record, &stopped(Some(0), "EssentialContainerExited", ""));
        assert_eq!((next(&record), record.state), (Next::Ended, State::Done));
    }

    #[test]
    fn attempts_are_used_up_with_growing_waits() {
        let mut record = record();
        let mut waits = Vec::new();
        for _ in 0..2 {
            begin(&mut record);
            end(&mut record, &stopped(Some(75), "EssentialContainerExited", "S3 said 503"));
            waits.push(wait(&record).as_secs_f64());
        }
        assert!((8.0..=12.0).contains(&waits[0]), "{waits:?}");
        assert!((waits[1] / waits[0] - 2.0).abs() < 0.01, "{waits:?}");
        begin(&mut record);
        end(&mut record, &stopped(Some(75), "EssentialContainerExited", "S3 said 503"));
        assert_eq!(record.state, State::Failed);
        assert_eq!(record.reason.as_deref(), Some("all 3 attempts failed, the last one: S3 said 503"));
    }

    #[test]
    fn interruptions_do_not_count_and_lead_to_on_demand() {
        let mut record = record();
        for interruption in 0..5 {
            let capacity = if interruption < 2 { Capacity::Spot } else { Capacity::OnDemand };
            assert_eq!(next_capacity(&record, &POLICY), capacity);
            assert_eq!(begin(&mut record), interruption + 1);
            end(&mut record, &stopped(Some(143), "SpotInterruption", ""));
            assert_eq!((record.state, wait(&record)), (State::Running, Duration::ZERO));
        }
    }

    #[test]
    fn what_is_not_the_videos_fault_never_fails_it_but_waits_longer_and_longer() {
        for (end_code, stop_code, longest) in
            [(None, "TaskFailedToStart", 5), (Some(78), "EssentialContainerExited", 30)]
        {
            let mut record = record();
            for _ in 0..20 {
                begin(&mut record);
                end(&mut record, &stopped(end_code, stop_code, ""));
            }
            assert_eq!(record.state, State::Running);
            let minutes = wait(&record).as_secs_f64() / 60.0;
            assert!((0.8..=1.2).contains(&(minutes / f64::from(longest))), "{minutes}");
        }
    }

    #[test]
    fn out_of_memory_leads_to_a_larger_task_and_nothing_else_does() {
        let mut record = record();
        let mut memories = Vec::new();
        for (exit_code, stop_code) in [
            (137, "EssentialContainerExited"),
            (143, "SpotInterruption"),
            (75, "EssentialContainerExited"),
            (137, "EssentialContainerExited"),
        ] {
            begin(&mut record);
            memories.push(record.attempts.last().unwrap().size.unwrap().memory_mib);
            end(&mut record, &stopped(Some(exit_code), stop_code, ""));
        }
        assert_eq!(memories[0], SIZE.memory_mib);
        assert!(memories[1] > memories[0], "{memories:?}");
        assert_eq!(memories[1..], [memories[1]; 3]);
        let (larger, why) = next_size(&record).unwrap();
        assert!(larger.memory_mib > memories[3] && why.starts_with("out of memory with "), "{why}");
    }

    #[test]
    fn a_job_that_is_started_anew_has_all_its_attempts_again_and_does_not_wait() {
        let mut record = record();
        for _ in 0..3 {
            begin(&mut record);
            end(&mut record, &stopped(Some(75), "EssentialContainerExited", ""));
        }
        assert_eq!(record.state, State::Failed);
        record.state = State::Running;
        record.restarts.push(Restart { at: record.updated_at, after_attempt: 3, request: "again".into() });
        assert_eq!(wait(&record), Duration::ZERO);
        for number in 4..=6 {
            assert_eq!(begin(&mut record), number);
            end(&mut record, &stopped(Some(75), "EssentialContainerExited", ""));
        }
        assert_eq!(record.state, State::Failed);
        assert!(record.reason.unwrap().starts_with("all 3 attempts failed"));
    }

    proptest! {
        #[test]
        fn a_job_never_counts_more_attempts_than_allowed(
            codes in prop::collection::vec(prop_oneof![
                Just((Some(75), "EssentialContainerExited")), Just((Some(137), "EssentialContainerExited")),
                Just((Some(143), "SpotInterruption")), Just((None, "TaskFailedToStart")),
                Just((Some(1), "EssentialContainerExited")), Just((Some(143), "UserInitiated")),
            ], 1..40),
        ) {
            let mut record = record();
            for (exit_code, stop_code) in codes {
                if record.state.is_end() {
                    break;
                }
                let number = begin(&mut record);
                prop_assert_eq!(number as usize, record.attempts.len());
                end(&mut record, &stopped(exit_code, stop_code, ""));
            }
            let counted = record.current_attempts().iter().filter(|attempt| attempt.counts).count();
            prop_assert!(counted <= 3);
            prop_assert_eq!(record.state == State::Failed, counted == 3);
        }
    }
}

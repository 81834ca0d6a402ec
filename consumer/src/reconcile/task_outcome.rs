//! Classifies the outcome of a task for its job, by the task's end in ECS and its report.
//!
//! All functions are pure, so consumers that see the same end and report get the same outcome.

use std::time::Duration;

use vidstreamx_job::{Exit, Outcome, Report};

use super::task_watcher::TaskEnd;
use crate::aws::ecs::Stopped;

/// The outcome of a task for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum TaskOutcome {
    /// The stream is published, and the report is complete.
    Done,
    /// The upload is not a usable video.
    Rejected,
    /// The source was deleted or replaced.
    Obsolete,
    /// An operator stopped the task with StopTask.
    Cancelled,
    /// The task has no final result, so the job needs another attempt.
    Retry(Cause),
}

/// The cause of a task's end without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A temporary failure of storage, network or disk.
    Transient,
    /// A wrong setting or permission.
    Misconfigured,
    /// The task's memory was too small.
    OutOfMemory,
    /// AWS reclaimed the capacity, or the host failed.
    Interrupted,
    /// The task did not start, because of its image, network interface or role.
    NotStarted,
    /// ECS refused the launches, perhaps because of the task's size.
    Refused,
    /// A bug or a crash.
    Crashed,
}

impl Cause {
    /// Whether the attempt counts towards the limit of attempts. It counts only if the video may be the
    /// cause, because a wrong image or a Spot interruption must not fail a good video. A misconfigured task
    /// counts, too, if other tasks have worked meanwhile.
    #[must_use]
    pub(super) const fn counts(self) -> bool {
        match self {
            Self::Transient | Self::OutOfMemory | Self::Crashed => true,
            Self::Misconfigured | Self::Interrupted | Self::NotStarted | Self::Refused => false,
        }
    }
}

/// A classified task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) struct Classified {
    pub(super) outcome: TaskOutcome,
    /// The task's end in ECS.
    pub(super) stopped: Stopped,
    /// The reason as a sentence, from the report or else from ECS.
    pub(super) reason: Option<String>,
    /// Whether the attempt counts towards the limit of attempts.
    pub(super) counts: bool,
}

impl Classified {
    fn new(outcome: TaskOutcome, stopped: Stopped, reason: Option<String>) -> Self {
        let counts = matches!(outcome, TaskOutcome::Retry(cause) if cause.counts());
        Self { outcome, stopped, reason, counts }
    }
}

/// Classifies a task by its end and its report. A task is done only if its report is complete, too. A task
/// that ECS no longer lists is classified by its report alone.
pub(super) fn classify(end: TaskEnd, report: Option<&Report>) -> Classified {
    let reported = report.map(|report| report.outcome);
    let reason = report.and_then(|report| report.reason.clone()).filter(|reason| !reason.is_empty());
    match end {
        TaskEnd::Stopped(stopped) => classify_stopped(stopped, reported, reason),
        TaskEnd::Vanished => {
            let outcome = match reported {
                Some(Outcome::Complete) => TaskOutcome::Done,
                Some(Outcome::Rejected) => TaskOutcome::Rejected,
                Some(Outcome::Obsolete) => TaskOutcome::Obsolete,
                Some(Outcome::Failed) => TaskOutcome::Retry(Cause::Crashed),
                // No consumer saw the end in time, which is not the fault of the video.
                None => TaskOutcome::Retry(Cause::Interrupted),
            };
            let without_reason = match reported {
                Some(_) => "ECS no longer lists the task, so its report decides",
                None => "ECS no longer lists the task, and the task left no report",
            };
            let billed =
                report.and_then(|report| Duration::try_from_secs_f64(report.timings.total_seconds).ok());
            let stopped = Stopped { billed, ..Stopped::default() };
            Classified::new(outcome, stopped, reason.or_else(|| Some(without_reason.to_owned())))
        }
    }
}

fn classify_stopped(stopped: Stopped, reported: Option<Outcome>, reason: Option<String>) -> Classified {
    let outcome = stop_outcome(&stopped);
    if outcome == TaskOutcome::Done && reported != Some(Outcome::Complete) {
        let reason = Some("the task ended with exit code 0, but without a complete report".to_owned());
        return Classified::new(TaskOutcome::Retry(Cause::Crashed), stopped, reason);
    }
    // The task writes the report before it exits, and can still end in another way.
    let exit = stopped.exit_code.and_then(Exit::from_code);
    let reason = reason.filter(|_| exit.map(Outcome::from) == reported);
    let reason = reason.or_else(|| stopped.reason.clone());
    Classified::new(outcome, stopped, reason)
}

/// The outcome by the task's end in ECS alone. docs/ARCHITECTURE.md has the same table.
pub(super) fn stop_outcome(stopped: &Stopped) -> TaskOutcome {
    let is_out_of_memory = || stopped.reason.as_deref().is_some_and(|text| text.contains("OutOfMemory"));
    let by_exit_code = match stopped.exit_code.and_then(Exit::from_code) {
        // A result about the video is final, even if AWS interrupted the task right after it.
        Some(Exit::Done) => return TaskOutcome::Done,
        Some(Exit::Unusable) => return TaskOutcome::Rejected,
        Some(Exit::Obsolete) => return TaskOutcome::Obsolete,
        Some(Exit::Terminated) => Cause::Interrupted,
        Some(Exit::Transient) => Cause::Transient,
        Some(Exit::Misconfigured) => Cause::Misconfigured,
        Some(Exit::OutOfMemory) => Cause::OutOfMemory,
        Some(Exit::Internal) | None if is_out_of_memory() => Cause::OutOfMemory,
        Some(Exit::Internal) | None => Cause::Crashed,
    };
    TaskOutcome::Retry(match stopped.stop_code.as_deref() {
        Some("SpotInterruption" | "TerminationNotice" | "InfrastructureHealth") => Cause::Interrupted,
        Some("UserInitiated") => return TaskOutcome::Cancelled,
        Some("TaskFailedToStart") => Cause::NotStarted,
        _ => by_exit_code,
    })
}

/// The outcome of an attempt whose RunTask request ECS refused because of the job's values.
pub(super) fn launch_invalid(reason: String) -> Classified {
    Classified::new(TaskOutcome::Retry(Cause::Crashed), Stopped::default(), Some(reason))
}

/// The outcome of an attempt whose job was cancelled before its task was launched.
pub(super) fn launch_cancelled() -> Classified {
    // The stop code tells it from a refused launch.
    let stopped = Stopped { stop_code: Some("UserInitiated".to_owned()), ..Stopped::default() };
    Classified::new(TaskOutcome::Cancelled, stopped, None)
}

/// The outcome of an attempt whose launches ECS refuses, while it accepts those of others. The attempt counts
/// unless the next one has a smaller size.
pub(super) fn launch_refused(reason: String, has_smaller: bool) -> Classified {
    let outcome = TaskOutcome::Retry(Cause::Refused);
    Classified { counts: !has_smaller, ..Classified::new(outcome, Stopped::default(), Some(reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn stopped(exit_code: Option<i32>, stop_code: &str, reason: &str) -> Stopped {
        Stopped { billed: None, exit_code, stop_code: Some(stop_code.into()), reason: Some(reason.into()) }
    }

    #[test]
    fn exit_and_stop_codes_decide_the_outcome() {
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
            (Some(143), "UserInitiated", "", Cancelled),
            (Some(0), "UserInitiated", "", Done),
            (None, "TaskFailedToStart", "CannotPullContainerError", Retry(NotStarted)),
            (Some(70), exited, "", Retry(Crashed)),
            (Some(101), exited, "", Retry(Crashed)),
            (None, exited, "", Retry(Crashed)),
            (None, "SomethingNew", "", Retry(Crashed)),
        ] {
            assert_eq!(
                stop_outcome(&stopped(exit_code, stop_code, reason)),
                expected,
                "{exit_code:?} {stop_code}"
            );
        }
    }

    fn report(outcome: Outcome, reason: &str) -> Report {
        Report { reason: Some(reason.to_owned()), ..fixtures::report(outcome) }
    }

    #[test]
    fn exit_code_0_needs_a_complete_report() {
        let end = TaskEnd::Stopped(stopped(Some(0), "EssentialContainerExited", "exited"));
        assert_eq!(classify(end.clone(), Some(&report(Outcome::Complete, ""))).outcome, TaskOutcome::Done);
        for report in [None, Some(report(Outcome::Failed, "old"))] {
            let classified = classify(end.clone(), report.as_ref());
            assert_eq!(classified.outcome, TaskOutcome::Retry(Cause::Crashed));
            assert!(classified.reason.unwrap().contains("without a complete report"));
        }
    }

    #[test]
    fn the_reason_of_the_report_needs_an_outcome_that_matches_the_exit_code() {
        for (code, outcome, reason) in [
            (65, Outcome::Rejected, "report"),
            (66, Outcome::Rejected, "ecs"),
            (75, Outcome::Failed, "report"),
            (101, Outcome::Failed, "ecs"),
        ] {
            let end = TaskEnd::Stopped(stopped(Some(code), "EssentialContainerExited", "ecs"));
            let classified = classify(end, Some(&report(outcome, "report")));
            assert_eq!(classified.reason.as_deref(), Some(reason), "{code}");
        }
    }

    #[test]
    fn a_task_that_ecs_no_longer_lists_is_classified_by_its_report() {
        for (reported, outcome) in [
            (Outcome::Complete, TaskOutcome::Done),
            (Outcome::Rejected, TaskOutcome::Rejected),
            (Outcome::Obsolete, TaskOutcome::Obsolete),
            (Outcome::Failed, TaskOutcome::Retry(Cause::Crashed)),
        ] {
            assert_eq!(classify(TaskEnd::Vanished, Some(&report(reported, ""))).outcome, outcome);
        }
        assert_eq!(classify(TaskEnd::Vanished, None).outcome, TaskOutcome::Retry(Cause::Interrupted));
    }
}

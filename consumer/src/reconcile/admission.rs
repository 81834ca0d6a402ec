//! The admission of a job: decides whether its upload gets a task. Pure functions.

use vidstreamx_job::{Job, State};

use crate::inspect::{Inspection, MediaFacts};

/// The admission of a job that has no record yet.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(super) enum Admission {
    /// Begin the first attempt. The facts, if any were found, decide the task's size.
    Begin(Option<MediaFacts>),
    /// End the job without a task, with this state and reason.
    End(State, String),
}

/// Ends a job whose notification shows that it cannot succeed. `fits` tells whether the job's launch is
/// within ECS's limits.
#[must_use]
pub(super) fn by_notification(job: &Job, fits: bool) -> Option<Admission> {
    let reason = if job.source.size == Some(0) {
        "the file is empty"
    } else if !fits {
        "key and version id are too long for ECS's 8,192 characters of overrides"
    } else {
        return None;
    };
    Some(Admission::End(State::Rejected, reason.to_owned()))
}

/// Decides by the inspection of the upload. `None` means that S3 did not respond; then the job begins.
pub(super) fn by_inspection(inspection: Option<Inspection>) -> Admission {
    match inspection {
        Some(Inspection::NotVideo(reason)) => Admission::End(State::Rejected, reason),
        Some(Inspection::Gone) => Admission::End(State::Obsolete, "the object was deleted".to_owned()),
        Some(Inspection::Replaced) => {
            Admission::End(State::Obsolete, "the object was replaced by another".to_owned())
        }
        Some(Inspection::Video(facts)) => Admission::Begin(Some(facts)),
        None => Admission::Begin(None),
    }
}

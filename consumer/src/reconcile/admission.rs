//! The admission of a job: whether its upload is worth a task. Pure.

use vidstreamx_job::{Job, State};

use crate::inspect::{Inspection, MediaFacts};

/// The admission of a job that has no record yet.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(super) enum Admission {
    /// The first attempt begins. The facts size its task, if the inspection found any.
    Begin(Option<MediaFacts>),
    /// The job ends without a task: its state and the reason.
    End(State, String),
}

/// Ends a job that the notification alone rules out. `fits` says whether ECS takes its launch.
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

/// Admits a job by the inspection of its upload, or without one if S3 did not answer.
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

//! Decides what is removed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vidstreamx_job::{BucketName, JobId, Layout, ObjectKey, Record, State};

/// Time for which nothing in a folder was written, or since a job's end. It covers a task that has just
/// begun, also one whose record an operator deleted, a consumer whose clock is wrong by hours, and viewers
/// who began to watch before a folder was taken off the stable address.
pub(super) const SAFE_AGE: SignedDuration = SignedDuration::from_hours(24);

/// The job of a folder, by its record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Job {
    /// It runs, or its record cannot be read.
    InUse,
    /// It has ended.
    Ended { state: State, at: Timestamp },
    /// There is no record, and the job's id belongs to the stem.
    Orphan,
    /// Nothing shows that the folder belongs to a job of the stem.
    Unknown,
}

/// What is removed of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Checkpoints. Of a job that is done and at the stable address, also the folders of other plans.
    Remains,
    /// The folder except its report. The record and the report stay, because they explain the end.
    Leftovers,
    /// The folder. There is no record.
    Folder,
    /// The folder, the progress object and the record.
    All,
}

impl Action {
    /// Whether playlists that name the folder must not return to the stable address.
    #[must_use]
    pub(super) const fn removes_segments(self) -> bool {
        matches!(self, Self::Leftovers | Self::Folder | Self::All)
    }
}

/// Chooses the job of a folder by its record, if it has one that can be read.
#[must_use]
pub(super) fn job(
    stem: &str,
    id: &JobId,
    record: Option<&Record>,
    uploads: &BucketName,
    siblings: &[Record],
) -> Job {
    if let Some(record) = record {
        return match record.state {
            _ if Layout::stem_of(&record.source.key) != stem => Job::Unknown,
            State::Running => Job::InUse,
            state => Job::Ended { state, at: record.updated_at },
        };
    }
    let belongs_to = |key: &ObjectKey, bucket: &BucketName| {
        Layout::stem_of(key) == stem && id.as_str().starts_with(&JobId::prefix(bucket, key))
    };
    let by_stem = stem.parse::<ObjectKey>().is_ok_and(|key| belongs_to(&key, uploads));
    // A stem with a hash does not tell the key, but another job's record does.
    if by_stem || siblings.iter().any(|record| belongs_to(&record.source.key, &record.source.bucket)) {
        Job::Orphan
    } else {
        Job::Unknown
    }
}

/// Chooses what is removed of the jobs of one stem.
///
/// `shown` are the jobs that the stable address names, and `returning` those that a stream at the stable
/// address replaced and that may return to it.
#[must_use]
pub(super) fn actions(
    jobs: &BTreeMap<JobId, Job>,
    shown: &BTreeSet<JobId>,
    returning: &BTreeSet<JobId>,
    superseded_for: Option<SignedDuration>,
    now: Timestamp,
) -> BTreeMap<JobId, Action> {
    if jobs.values().any(|job| *job == Job::InUse) {
        return jobs.keys().map(|id| (id.clone(), Action::Nothing)).collect();
    }
    // The end of the job that replaced all earlier ones.
    let replaced_at = jobs.iter().find_map(|(id, job)| match job {
        Job::Ended { state: State::Done, at } if shown.contains(id) && shown.len() == 1 => Some(*at),
        _ => None,
    });
    let is_older = |at, age| is_older(now, at, age);
    let action = |id: &JobId, job: &Job| {
        let is_named = shown.contains(id) || returning.contains(id);
        match *job {
            Job::InUse | Job::Unknown => Action::Nothing,
            Job::Orphan if is_named => Action::Nothing,
            Job::Orphan => Action::Folder,
            Job::Ended { at, .. } if !is_older(at, SAFE_AGE) => Action::Nothing,
            Job::Ended { state: State::Done, at } if !is_named => match (superseded_for, replaced_at) {
                (Some(age), Some(replaced_at)) if at <= replaced_at && is_older(replaced_at, age) => {
                    Action::All
                }
                _ => Action::Remains,
            },
            Job::Ended { .. } if is_named => Action::Remains,
            Job::Ended { .. } => Action::Leftovers,
        }
    };
    jobs.iter().map(|(id, job)| (id.clone(), action(id, job))).collect()
}

/// Whether a time lies longer ago than `age`.
#[must_use]
pub(super) fn is_older(now: Timestamp, at: Timestamp, age: SignedDuration) -> bool {
    now.duration_since(at) > age
}

#[cfg(test)]
mod tests;

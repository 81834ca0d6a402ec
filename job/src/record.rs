//! The consumer's record of a job: its state and every attempt, so that history outlives ECS's.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Job, JobId, SchemaError, Source, schema};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A task runs, is about to, or waits for its next attempt.
    Running,
    /// The stream is published.
    Done,
    /// The upload is not a usable video.
    Rejected,
    /// The object was deleted or replaced before its stream was made.
    Obsolete,
    /// All attempts were used up.
    Failed,
}

impl State {
    /// Whether nothing more will happen to the job by itself.
    #[must_use]
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// One task that was started for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When RunTask was about to be called.
    pub started_at: Timestamp,
    /// Absent until RunTask has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// When the task's end was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The container's exit code, if it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// ECS's stop code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether this attempt spends one of the job's attempts; interruptions do not.
    #[serde(default)]
    pub counts: bool,
}

impl Attempt {
    /// An attempt that is about to start its task.
    #[must_use]
    pub const fn new(number: u32, started_at: Timestamp) -> Self {
        Self {
            number,
            started_at,
            task_arn: None,
            ended_at: None,
            exit_code: None,
            stop_code: None,
            reason: None,
            counts: false,
        }
    }
}

/// Everything known about a job; one object per job, written by the consumer alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`Record::SCHEMA`].
    pub schema: u32,
    /// The job's id.
    pub job_id: JobId,
    /// What was uploaded.
    pub source: Source,
    /// The profile's name.
    pub profile: String,
    /// Where the job stands.
    pub state: State,
    /// Why it ended, for ends other than done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the job was first seen.
    pub created_at: Timestamp,
    /// When this record was last written.
    pub updated_at: Timestamp,
    /// In order of their numbers.
    pub attempts: Vec<Attempt>,
}

impl Record {
    /// The layout this program writes and reads.
    pub const SCHEMA: u32 = 1;

    /// A job that was just seen for the first time.
    #[must_use]
    pub fn new(job: &Job, now: Timestamp) -> Self {
        Self {
            schema: Self::SCHEMA,
            job_id: job.id.clone(),
            source: job.source.clone(),
            profile: job.profile.clone(),
            state: State::Running,
            reason: None,
            created_at: now,
            updated_at: now,
            attempts: Vec::new(),
        }
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// Another schema version, or not a record.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        schema::parse(json, Self::SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_told_apart_from_rubbish() {
        let newer = br#"{"schema": 2, "something": "else"}"#;
        let error = Record::parse(newer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has schema version 2, this program reads 1: run the version that wrote it"
        );
        assert!(matches!(Record::parse(b"rubbish"), Err(SchemaError::Malformed(_))));
        assert!(matches!(Record::parse(br#"{"schema": 1}"#), Err(SchemaError::Malformed(_))));
    }
}

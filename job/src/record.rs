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

/// Which Fargate capacity a task runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Full price, not interrupted.
    OnDemand,
    /// Cheaper, with two minutes' notice when AWS wants it back.
    Spot,
}

/// What a task is given to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// CPU units, 1024 of which are one vCPU.
    pub cpu: u32,
    /// In MiB.
    pub memory_mib: u32,
    /// Ephemeral storage in GiB.
    pub storage_gib: u32,
}

/// One task that was started for a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1, over all of the job's lives.
    pub number: u32,
    /// When RunTask was about to be called.
    pub started_at: Timestamp,
    /// What the task was asked to run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// What the task was asked to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Why this size, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_reason: Option<String>,
    /// Absent until RunTask has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// When the task's end was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// From the beginning of the image's pull to the task's stop, as ECS tells: what is billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed_seconds: Option<f64>,
    /// What that costs, by the prices that the consumer was given; an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
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
            capacity: None,
            size: None,
            size_reason: None,
            task_arn: None,
            ended_at: None,
            billed_seconds: None,
            cost_usd: None,
            exit_code: None,
            stop_code: None,
            reason: None,
            counts: false,
        }
    }
}

/// A new start of a job that had ended, because a person asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// When.
    pub at: Timestamp,
    /// The number of the last attempt before it; 0 if there was none.
    pub after_attempt: u32,
    /// The request, as the message that asked for it named it: each is followed once.
    pub request: String,
}

/// Everything known about a job; one object per job, written by the consumer alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// In order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<Restart>,
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
            restarts: Vec::new(),
        }
    }

    /// The attempts since the latest start.
    #[must_use]
    pub fn current_attempts(&self) -> &[Attempt] {
        let before = self.restarts.last().map_or(0, |restart| restart.after_attempt);
        let first = self.attempts.iter().position(|attempt| attempt.number > before);
        self.attempts.get(first.unwrap_or(self.attempts.len())..).unwrap_or_default()
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

//! The consumer's record of a job: its state and all attempts. It outlives ECS's task history of one hour.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    identity::JobId,
    job::{Job, Source},
    schema::{self, SchemaError},
};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A task runs or is about to start, or the job waits for its next attempt.
    Running,
    /// The stream is published.
    Done,
    /// The upload is not a usable video.
    Rejected,
    /// The object was deleted or replaced before its stream was complete.
    Obsolete,
    /// All attempts failed.
    Failed,
    /// An operator cancelled the job, or stopped its task in ECS.
    Cancelled,
}

impl State {
    /// Whether the job has ended. Only a restart continues it.
    #[must_use]
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Running)
    }

    /// The name in records, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Obsolete => "obsolete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The Fargate capacity of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Capacity at full price, without interruptions.
    OnDemand,
    /// Cheaper capacity that AWS can interrupt with a notice of two minutes.
    Spot,
}

/// CPU, memory and storage of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// CPU units; 1024 are one vCPU.
    pub cpu: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Ephemeral storage in GiB.
    pub storage_gib: u32,
}

/// One task of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts from 1 and continues after a restart.
    pub number: u32,
    /// Time when the attempt began, before its first call of RunTask.
    pub started_at: Timestamp,
    /// The requested capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The requested size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// The reason for this size, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_reason: Option<String>,
    /// Number of RunTask calls for this attempt that ECS refused. It is part of the launch token, because ECS
    /// may answer a repeated token with the first result.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    /// Number of times that a consumer took over the launch of this attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub takeovers: u32,
    /// The task's ARN; absent until RunTask has responded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// Time when the consumer saw the task's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Seconds from the start of the image pull to the task's stop, by ECS's timestamps: the billed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed_seconds: Option<f64>,
    /// Estimated cost in US dollars, by the consumer's configured prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The container's exit code; absent if the container did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// ECS's stop code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<String>,
    /// The reason why the attempt ended, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether this attempt counts towards the limit of attempts; interruptions do not.
    #[serde(default)]
    pub counts: bool,
    /// Fields that this program does not know. They are written back.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The fields of another version.
pub(crate) type Unknown = serde_json::Map<String, serde_json::Value>;

#[allow(clippy::trivially_copy_pass_by_ref)] // Serde passes a reference.
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Attempt {
    /// An attempt whose task is not launched yet.
    #[must_use]
    pub fn new(number: u32, started_at: Timestamp) -> Self {
        Self {
            number,
            started_at,
            capacity: None,
            size: None,
            size_reason: None,
            refusals: 0,
            takeovers: 0,
            task_arn: None,
            ended_at: None,
            billed_seconds: None,
            cost_usd: None,
            exit_code: None,
            stop_code: None,
            reason: None,
            counts: false,
            unknown: Unknown::new(),
        }
    }
}

/// A restart of an ended job: by an operator, because a message returned from the dead-letter queue, or
/// because the object is there again. Also a request that a running job fulfils.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Time of the restart.
    pub at: Timestamp,
    /// Number of the last attempt before the restart; 0 if there was none.
    pub after_attempt: u32,
    /// The request's id. Each request restarts the job once.
    pub request: String,
}

/// The record of a job: one object per job, written by consumers, and by operators who cancel the job. Every
/// write is conditional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`Record::SCHEMA`], or the neighbouring version that wrote the record.
    pub schema: u32,
    /// The job's id.
    pub job_id: JobId,
    /// The upload.
    pub source: Source,
    /// The profile's name.
    pub profile: String,
    /// The current state.
    pub state: State,
    /// The reason why the job ended, as a sentence; absent while it runs and if it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time when the consumer first saw the job.
    pub created_at: Timestamp,
    /// Time of the last write of this record.
    pub updated_at: Timestamp,
    /// Random number of the last write. A consumer recognises its own write by it if the response was lost.
    #[serde(default)]
    pub write_id: u64,
    /// Time when an operator cancelled the job, which may still have a task. No task is launched after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
    /// All attempts in the order of their numbers.
    pub attempts: Vec<Attempt>,
    /// All restarts in chronological order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<Restart>,
    /// Fields that this program does not know. They are written back.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record {
    /// The schema version of this program's new records.
    pub const SCHEMA: u32 = 1;

    /// The record of a new job.
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
            write_id: 0,
            cancel_requested_at: None,
            attempts: Vec::new(),
            restarts: Vec::new(),
            unknown: Unknown::new(),
        }
    }

    /// The attempts since the last restart.
    #[must_use]
    pub fn current_attempts(&self) -> &[Attempt] {
        let before = self.restarts.last().map_or(0, |restart| restart.after_attempt);
        let first = self.attempts.iter().position(|attempt| attempt.number > before);
        self.attempts.get(first.unwrap_or(self.attempts.len())..).unwrap_or_default()
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// The JSON has another schema version, or is not a record.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        schema::parse(json, Self::SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_schema_version_is_not_reported_as_malformed() {
        for version in [2, 3] {
            let newer = format!(r#"{{"schema": {version}, "something": "else"}}"#);
            let error = Record::parse(newer.as_bytes()).unwrap_err().to_string();
            let expected = "this program reads 1: run the version that wrote it";
            assert_eq!(error, format!("it has schema version {version}, {expected}"));
        }
        assert!(matches!(Record::parse(b"rubbish"), Err(SchemaError::Malformed(_))));
        assert!(matches!(Record::parse(br#"{"schema": 1}"#), Err(SchemaError::Malformed(_))));
    }

    /// A consumer of the previous version continues a job during an upgrade.
    #[test]
    fn a_record_of_a_neighbouring_version_keeps_its_fields() {
        let source = r#"{"bucket": "uploads", "key": "a.mp4", "etag": "e"}"#;
        let newer = format!(
            r#"{{"schema": 2, "job_id": "0123456789abcdef0123456789abcdef", "source": {source},
                "profile": "default", "state": "running", "created_at": "2026-05-04T09:12:33Z",
                "updated_at": "2026-05-04T09:12:33Z", "owner": {{"name": "x"}},
                "attempts": [{{"number": 1, "started_at": "2026-05-04T09:12:33Z", "zone": "b"}}]}}"#
        );
        let mut record = Record::parse(newer.as_bytes()).unwrap();
        record.attempts.push(Attempt::new(2, record.created_at));
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!((&written["schema"], &written["owner"]["name"]), (&2.into(), &"x".into()));
        assert_eq!(written["attempts"][0]["zone"], "b");
        assert_eq!(Record::parse(written.to_string().as_bytes()).unwrap(), record);
        let far = newer.replace(r#""schema": 2"#, r#""schema": 3"#);
        assert!(matches!(Record::parse(far.as_bytes()), Err(SchemaError::Version { found: 3, .. })));
    }
}

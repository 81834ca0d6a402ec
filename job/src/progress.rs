//! The progress of a running task: a small object that the task rewrites every few seconds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    identity::JobId,
    schema::{self, SchemaError},
};

/// The stage of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Measures the loudness of all audio, for profiles with a loudness target.
    Measuring,
    /// Encodes and publishes segments.
    Encoding,
    /// Verifies the segments; publishes images, subtitles, MP4 files and final playlists.
    Finishing,
    /// The stream is published and the report written.
    Complete,
    /// The task ended without a complete stream. The job's record has the reason and the next attempt.
    Failed,
}

impl Stage {
    /// Whether the task has ended.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// The progress of one rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungProgress {
    /// `1080p`, `1080p-av1`.
    pub name: String,
    /// Number of published segments.
    pub segments: usize,
}

/// The progress of a task. The object in S3 can be out of date, because a task continues if it cannot write
/// the object, and a killed task leaves the last one behind. Use the object only if the job's record has a
/// running attempt that began no later than `started_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// [`Progress::SCHEMA`].
    pub schema: u32,
    /// The job's id.
    pub job_id: JobId,
    /// The task's start.
    pub started_at: Timestamp,
    /// Time of this write, by the task's clock.
    pub updated_at: Timestamp,
    /// The current stage.
    pub stage: Stage,
    /// Completed share of all work, from 0 to 1. It never decreases during a task, and is 1 only at the end.
    pub share: f64,
    /// Processed source seconds per second since the stage began; absent while FFmpeg does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// The estimated end; absent at the end, and until the speed is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_end: Option<Timestamp>,
    /// Source seconds that the stage has processed. A stage that reads the source again starts at 0.
    pub done_seconds: f64,
    /// Duration of the source; 0 if unknown.
    pub duration_seconds: f64,
    /// Progress of the rungs, largest first; empty for sources with audio only.
    #[serde(default)]
    pub rungs: Vec<RungProgress>,
}

impl Progress {
    /// The schema version that this program writes and reads.
    pub const SCHEMA: u32 = 1;

    /// Reads a stored progress object.
    ///
    /// # Errors
    /// The JSON has another schema version, or is not a progress object.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        schema::parse(json, Self::SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_may_be_missing_and_other_versions_are_errors() {
        let least = br#"{
            "schema": 1, "job_id": "0123456789abcdef0123456789abcdef", "stage": "encoding", "share": 0.25,
            "started_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:05:05Z",
            "done_seconds": 15.0, "duration_seconds": 60.0
        }"#;
        let progress = Progress::parse(least).unwrap();
        assert_eq!((progress.stage, progress.share), (Stage::Encoding, 0.25));
        assert_eq!((progress.speed, progress.expected_end, progress.rungs), (None, None, Vec::new()));
        assert!(matches!(Progress::parse(br#"{"schema": 2}"#), Err(SchemaError::Version { found: 2, .. })));
        assert!(matches!(Progress::parse(br#"{"schema": 1}"#), Err(SchemaError::Malformed(_))));
    }
}

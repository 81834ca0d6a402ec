//! How far a running task is: a small object that the task writes again every few seconds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{JobId, SchemaError, schema};

/// What the task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Listens to the whole sound, for profiles that ask for a loudness.
    Measuring,
    /// Encodes and publishes segments.
    Encoding,
    /// Checks what is published; images, subtitles, MP4 files, final playlists.
    Finishing,
    /// The stream is published and the report written.
    Complete,
    /// This task ended without that. The job's record says why, and whether another task follows.
    Failed,
}

impl Stage {
    /// Whether the task that wrote this is at its end.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// A rung that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungProgress {
    /// `1080p`, `1080p-av1`.
    pub name: String,
    /// How many segments of it are published.
    pub segments: usize,
}

/// How far a task is. It is best effort: a task that cannot write it goes on, and one that is killed leaves the last
/// state behind. So it means something only while the job's record says that a task runs, and only if `started_at`
/// is not before that attempt's beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// [`Progress::SCHEMA`].
    pub schema: u32,
    /// The job's id.
    pub job_id: JobId,
    /// The task's start.
    pub started_at: Timestamp,
    /// When this was written, by the task's clock.
    pub updated_at: Timestamp,
    /// What the task is doing.
    pub stage: Stage,
    /// How much of the work is done, from 0 to 1. Never falls while a task runs; 1 only when it is complete.
    pub share: f64,
    /// Seconds of the source per second, since the stage began; absent where FFmpeg does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// An estimate; absent as long as there is nothing to base it on, and at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_end: Option<Timestamp>,
    /// How much of the source the stage has behind it. Begins anew when the source is gone through once more.
    pub done_seconds: f64,
    /// How long the source is; 0 if that never became known.
    pub duration_seconds: f64,
    /// Largest first; empty for sound alone.
    #[serde(default)]
    pub rungs: Vec<RungProgress>,
}

impl Progress {
    /// The layout this program writes and reads.
    pub const SCHEMA: u32 = 1;

    /// Reads a stored progress object.
    ///
    /// # Errors
    /// Another schema version, or not a progress object.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        schema::parse(json, Self::SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_missing_may_be_missing_and_other_versions_are_told_apart() {
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

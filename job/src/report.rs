//! The task's report on a job: `job.json`, written last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Exit, JobId, SchemaError, Source, schema};

/// How the task's work came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything is published and verified.
    Complete,
    /// The input is not a usable video.
    Rejected,
    /// The source object was deleted or replaced.
    Obsolete,
    /// Trouble; the reason says which.
    Failed,
}

impl From<Exit> for Outcome {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::Complete,
            Exit::Unusable => Self::Rejected,
            Exit::Obsolete => Self::Obsolete,
            Exit::Internal | Exit::Transient | Exit::Misconfigured | Exit::OutOfMemory | Exit::Terminated => {
                Self::Failed
            }
        }
    }
}

/// What the task found, made, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: u32,
    /// The job's id.
    pub job_id: JobId,
    /// How it came out.
    pub outcome: Outcome,
    /// One sentence for people, for every outcome but complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was read; absent when a plain file was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Where the stream is, below its stable address: `<job id>/<plan id>`; absent if nothing was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What the source turned out to be; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// What was published.
    #[serde(default)]
    pub renditions: Vec<Rendition>,
    /// Things a person should know although the stream plays (a damaged source, a dropped track).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When and how long.
    pub timings: Timings,
}

impl Report {
    /// The layout this program writes and reads.
    pub const SCHEMA: u32 = 1;

    /// Reads a stored report.
    ///
    /// # Errors
    /// Another schema version, or not a report.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        schema::parse(json, Self::SCHEMA)
    }
}

/// What a source file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// FFmpeg's name of the container format.
    pub format: String,
    /// Of the longest track.
    pub duration_seconds: f64,
    /// The one that is transcoded; absent for audio alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoTrack>,
    /// All of them.
    #[serde(default)]
    pub audio: Vec<AudioTrack>,
    /// All that are text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtitles: Vec<SubtitleTrack>,
    /// In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chapters: Vec<Chapter>,
}

/// A source's video track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoTrack {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// As shown: after rotation and pixel aspect ratio, in square pixels.
    pub width: u32,
    /// As shown: after rotation and pixel aspect ratio, in square pixels.
    pub height: u32,
    /// Frames per second, on average.
    pub frame_rate: f64,
    /// Clockwise degrees the picture is turned by for display: 0, 90, 180 or 270.
    pub rotation: u32,
    /// FFmpeg's name of the pixel format.
    pub pixel_format: String,
    /// `sdr`, `hdr10`, `hlg`, or `dolby-vision-8.4` with Dolby's profile and base layer.
    #[serde(default)]
    pub dynamic_range: String,
    /// In bits per second; 0 when the file does not say.
    #[serde(default)]
    pub bit_rate: u64,
}

/// A source's audio track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudioTrack {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// How many.
    pub channels: u32,
    /// In Hz.
    pub sample_rate: u32,
    /// ISO 639-2 code; absent when the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The name that a person gave it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// A source's track of text to be shown with the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtitleTrack {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// ISO 639-2 code; absent when the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The name that a person gave it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Shown even without being asked for.
    #[serde(default)]
    pub forced: bool,
}

/// A named part of a source. Times count from the stream's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chapter {
    /// Where it begins.
    pub start_seconds: f64,
    /// Where it ends.
    pub end_seconds: f64,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// What a rendition carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenditionKind {
    /// A rung of the ladder.
    Video,
    /// An audio track.
    Audio,
    /// A track of subtitles, as WebVTT.
    Subtitles,
    /// A rung and its sound as one progressive file.
    Mp4,
}

/// One published rendition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendition {
    /// `1080p`, `1080p-av1`, or the language for sound and subtitles.
    pub name: String,
    /// What it carries.
    pub kind: RenditionKind,
    /// RFC 6381 codecs string.
    pub codecs: String,
    /// Whether it is the source's own track, not encoded again.
    #[serde(default)]
    pub copied: bool,
    /// In pixels; 0 for other kinds than video.
    pub width: u32,
    /// In pixels; 0 for other kinds than video.
    pub height: u32,
    /// How many; 0 for other kinds than audio.
    #[serde(default)]
    pub channels: u32,
    /// ISO 639-2 code; absent when the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How many media segments.
    pub segments: usize,
    /// Video frames or audio frames, of which one of AAC-LC is 1024 samples.
    #[serde(default)]
    pub frames: usize,
    /// From the first sample to the end of the last.
    pub duration_seconds: f64,
    /// Init segment and media segments, or the file.
    pub bytes: u64,
    /// Of the busiest segment, in bits per second.
    pub peak_bandwidth: u64,
    /// Over all segments, in bits per second.
    pub average_bandwidth: u64,
    /// What was seen when it was read back, before it was published as complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// What ffprobe says of a published rendition's first and last segment, read back from where they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// FFmpeg's name.
    pub codec: String,
    /// In pixels; 0 for audio.
    pub width: u32,
    /// In pixels; 0 for audio.
    pub height: u32,
    /// Segments that begin with a keyframe; all of them, for video.
    pub keyframes_at_boundaries: usize,
    /// Frames in the two segments.
    pub frames_read: usize,
}

/// When the task ran, and how long its parts took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// The task's start.
    pub started_at: Timestamp,
    /// When the report was written.
    pub finished_at: Timestamp,
    /// Reading what the source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_seconds: Option<f64>,
    /// From the task's start until the master playlist could be played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_playable_seconds: Option<f64>,
    /// From FFmpeg's start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encode_seconds: Option<f64>,
    /// From the task's start to this report.
    pub total_seconds: f64,
}

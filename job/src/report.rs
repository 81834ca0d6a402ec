//! The task's report of a job, `job.json`. The task writes it last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    exit::Exit,
    identity::JobId,
    job::Source,
    schema::{self, SchemaError},
};

/// The outcome of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything is published and verified.
    Complete,
    /// The input is not a usable video.
    Rejected,
    /// The source object was deleted or replaced.
    Obsolete,
    /// The task failed; the report has the reason.
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

/// The report of a task: the source, the published renditions, the timings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: u32,
    /// The job's id.
    pub job_id: JobId,
    /// The launch token of the attempt that wrote the report; absent for a run from the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<String>,
    /// The outcome.
    pub outcome: Outcome,
    /// The reason as a sentence; absent if the outcome is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The source object; absent for a local file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The stream's folder below its stable address: `<job id>/<plan id>`; absent if the task made no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The source's tracks; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The published renditions.
    #[serde(default)]
    pub renditions: Vec<Rendition>,
    /// Problems that do not prevent playback, such as a damaged source or a dropped track.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Times and durations.
    pub timings: Timings,
}

impl Report {
    /// The schema version that this program writes and reads.
    pub const SCHEMA: u32 = 1;

    /// Reads a stored report.
    ///
    /// # Errors
    /// The JSON has another schema version, or is not a report.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        schema::parse(json, Self::SCHEMA)
    }
}

/// The content of a source file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// FFmpeg's name of the container format.
    pub format: String,
    /// Duration of the longest track.
    pub duration_seconds: f64,
    /// The transcoded video track; absent for sources with audio only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoTrack>,
    /// All audio tracks.
    #[serde(default)]
    pub audio: Vec<AudioTrack>,
    /// All text tracks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtitles: Vec<SubtitleTrack>,
    /// The chapters in chronological order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chapters: Vec<Chapter>,
}

/// A source's video track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoTrack {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Display width in square pixels, after rotation and pixel aspect ratio.
    pub width: u32,
    /// Display height in square pixels, after rotation and pixel aspect ratio.
    pub height: u32,
    /// Frames per second, on average.
    pub frame_rate: f64,
    /// Clockwise rotation for display in degrees: 0, 90, 180 or 270.
    pub rotation: u32,
    /// FFmpeg's name of the pixel format.
    pub pixel_format: String,
    /// `sdr`, `hdr10`, `hlg`, or Dolby Vision with its profile and the compatibility of its base layer, such
    /// as `dolby-vision-8.4`.
    #[serde(default)]
    pub dynamic_range: String,
    /// Bit rate in bits per second; 0 if unknown.
    #[serde(default)]
    pub bit_rate: u64,
}

/// A source's audio track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudioTrack {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Number of channels.
    pub channels: u32,
    /// Sample rate in Hz.
    pub sample_rate: u32,
    /// ISO 639-2 code; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The track's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// A source's subtitle track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtitleTrack {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// ISO 639-2 code; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The track's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether players show it even if the viewer turned subtitles off.
    #[serde(default)]
    pub forced: bool,
}

/// A chapter of a source. Times count from the stream's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chapter {
    /// Start in seconds.
    pub start_seconds: f64,
    /// End in seconds.
    pub end_seconds: f64,
    /// The chapter's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// The kind of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenditionKind {
    /// A rung of the ladder.
    Video,
    /// An audio track.
    Audio,
    /// A subtitle track as WebVTT.
    Subtitles,
    /// A rung and its audio as one progressive file.
    Mp4,
}

/// One published rendition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendition {
    /// `1080p`, `1080p-av1`, or the language of audio and subtitles.
    pub name: String,
    /// The rendition's kind.
    pub kind: RenditionKind,
    /// RFC 6381 codecs string.
    pub codecs: String,
    /// Whether the rendition is a copy of the source's track, not encoded again.
    #[serde(default)]
    pub copied: bool,
    /// Width in pixels; 0 for kinds other than video.
    pub width: u32,
    /// Height in pixels; 0 for kinds other than video.
    pub height: u32,
    /// Number of channels; 0 for kinds other than audio.
    #[serde(default)]
    pub channels: u32,
    /// ISO 639-2 code; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Number of media segments.
    pub segments: usize,
    /// Number of frames. An audio frame of AAC-LC has 1024 samples.
    #[serde(default)]
    pub frames: usize,
    /// Duration from the start of the first sample to the end of the last sample.
    pub duration_seconds: f64,
    /// Bytes of the init segment and all media segments, or of the MP4 file.
    pub bytes: u64,
    /// Bit rate of the largest segment relative to its duration, in bits per second.
    pub peak_bandwidth: u64,
    /// Bit rate over all segments, in bits per second.
    pub average_bandwidth: u64,
    /// The result of reading the rendition back from the output, before the stream was published as complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// ffprobe's result for a rendition's first and last segment, read back from the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Width in pixels; 0 for audio.
    pub width: u32,
    /// Height in pixels; 0 for audio.
    pub height: u32,
    /// Number of all the rendition's segments that begin with a keyframe. In video, every segment must.
    pub keyframes_at_boundaries: usize,
    /// Number of frames in the two segments.
    pub frames_read: usize,
}

/// The task's times, and the durations of its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Start of the task.
    pub started_at: Timestamp,
    /// Time when the task wrote the report.
    pub finished_at: Timestamp,
    /// Seconds that the task needed to probe the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_seconds: Option<f64>,
    /// Seconds from the task's start to the first playable master playlist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_playable_seconds: Option<f64>,
    /// Seconds from FFmpeg's start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encode_seconds: Option<f64>,
    /// Seconds from the task's start to this report.
    pub total_seconds: f64,
}

//! The plan: all renditions of a source, and the boundaries of their segments.

use crate::config::profile::Codec;

use super::{colour::Colour, gain::Gain, segmentation::Boundaries};

/// The renditions of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What all rungs share; absent for audio alone.
    pub picture: Option<Picture>,
    /// H.264 first, in each codec largest first; empty for audio alone.
    pub rungs: Vec<VideoRendition>,
    /// One per source track in stereo, then those in their original layout.
    pub audio: Vec<AudioRendition>,
    /// One per source track of text.
    pub subtitles: Vec<SubtitleRendition>,
    /// Where segments begin.
    pub boundaries: Boundaries,
    /// Of the source, in seconds; 0 if the file does not say.
    pub duration_seconds: f64,
}

/// The source's picture, as every rung takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// FFmpeg's stream index.
    pub stream: usize,
    /// Whether fields must be made frames first.
    pub deinterlace: bool,
    /// What must be done to its colours.
    pub colour: Colour,
    /// The source's clock, which the rungs keep, so that no frame moves; with ticks that are short enough for an instant
    /// between two frames.
    pub time_base: String,
    /// How many ticks the source's clock has in a second.
    pub timescale: u32,
    /// When it begins, in seconds.
    pub start_seconds: f64,
    /// Of this track, in seconds; 0 if the file does not say.
    pub duration_seconds: f64,
    /// When it ends, in seconds; 0 if the file does not say.
    pub end_seconds: f64,
    /// How many, if the file says.
    pub frames: Option<u64>,
}

/// One rung.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRendition {
    /// Unique in the stream, part of its address: `1080p` (the shorter side), `1080p-av1`.
    pub name: String,
    /// What it is published in.
    pub codec: Codec,
    /// Even, in square pixels.
    pub width: u32,
    /// Even, in square pixels.
    pub height: u32,
    /// Frames per second, on average.
    pub frame_rate: f64,
    /// Cap of the rate in kbit/s.
    pub max_kbps: u32,
    /// How it is encoded; absent if the source is published as it is.
    pub encoding: Option<Encoding>,
    /// What is encoded nevertheless in front of the source's own frames.
    pub encoded_prefix: Option<EncodedPrefix>,
}

/// The beginning of a rung that is published as it is from a later keyframe on: there are short segments, as in the other
/// rungs, and they begin at the same instants, without which browsers' players stop at a picture when they switch.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedPrefix {
    /// The interval between boundaries that the source's own frames begin with.
    pub until: i64,
    /// By H.264, with parameter sets that are not the source's: both are in one init segment.
    pub encoding: Encoding,
}

/// How a rung is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoding {
    /// The encoder's constant rate factor.
    pub crf: f64,
    /// The encoder's preset.
    pub preset: String,
    /// Further parameters of the encoder, as `name=value:name=value`; may be empty.
    pub params: String,
}

/// One audio track of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioRendition {
    /// Unique in the stream, part of its address: `eng`, `und`, `eng-2`, `eng-5.1`.
    pub name: String,
    /// For people.
    pub label: String,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// FFmpeg's stream index.
    pub stream: usize,
    /// Whether it plays if nobody chooses.
    pub default: bool,
    /// In Hz.
    pub sample_rate: u32,
    /// One or two, or the source's in its original layout.
    pub channels: u32,
    /// The channel layout it is encoded in, by FFmpeg's name: `stereo`, `5.1`; absent if the source is published
    /// as it is.
    pub layout: Option<&'static str>,
    /// In kbit/s.
    pub kbps: u32,
    /// What brings it to the profile's loudness, once it has been measured.
    pub gain: Option<Gain>,
    /// Of the source's track, in seconds; 0 if the file does not say.
    pub duration_seconds: f64,
    /// Whether there has to be silence before it.
    pub begins_late: bool,
    /// When the source's track begins, in seconds.
    pub start_seconds: f64,
    /// When the source's track ends, in seconds; 0 if no sample table says so (Matroska has a text, which may lie).
    pub end_seconds: f64,
    /// When the picture ends, in seconds: until then there is silence if there is nothing else. 0 without a
    /// picture.
    pub at_least_seconds: f64,
}

#[cfg(test)]
impl AudioRendition {
    /// Stereo that is encoded, in whatever language.
    pub fn of_tests(stream: usize, duration_seconds: f64) -> Self {
        Self {
            name: "und".into(),
            label: "Audio".into(),
            language: None,
            stream,
            default: true,
            sample_rate: 48_000,
            channels: 2,
            layout: Some("stereo"),
            kbps: 128,
            gain: None,
            duration_seconds,
            begins_late: false,
            start_seconds: 0.0,
            end_seconds: duration_seconds,
            at_least_seconds: 0.0,
        }
    }
}

/// One track of subtitles.
#[derive(Debug, Clone, PartialEq)]
pub struct SubtitleRendition {
    /// Unique in the stream, part of its address: `eng`, `und-2`.
    pub name: String,
    /// For people.
    pub label: String,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// FFmpeg's stream index.
    pub stream: usize,
    /// Whether it is shown if nobody chooses.
    pub default: bool,
    /// Only what everybody must read.
    pub forced: bool,
}

impl Plan {
    /// Whether anything is published as it is.
    pub fn copies(&self) -> bool {
        self.rungs.iter().any(|rung| rung.encoding.is_none())
            || self.audio.iter().any(|track| track.layout.is_none())
    }

    /// The encoded prefix of the first rung, if segments of it remain from interval `first` on.
    #[must_use]
    pub(crate) fn encoded_prefix(&self, first: i64) -> Option<&EncodedPrefix> {
        self.rungs.first()?.encoded_prefix.as_ref().filter(|prefix| first < prefix.until)
    }
}

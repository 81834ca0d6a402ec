//! The plan: all renditions of a source, and the boundaries of their segments.

use crate::{
    analysis::{
        media::{Downmix, Role},
        orientation::Orientation,
    },
    config::profile::Codec,
};

use super::{colour::Colour, gain::Gain, hold::Hold, segmentation::Boundaries};

/// The renditions of one source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Properties that all rungs share; absent for audio alone.
    pub(crate) picture: Option<Picture>,
    /// H.264 first, each codec from large to small; empty for audio alone.
    pub(crate) rungs: Vec<VideoRendition>,
    /// One stereo or mono rendition per source track, then the surround renditions.
    pub(crate) audio: Vec<AudioRendition>,
    /// One per subtitle track of the source.
    pub(crate) subtitles: Vec<SubtitleRendition>,
    pub(crate) boundaries: Boundaries,
    /// Duration of the source in seconds; 0 if unknown.
    pub(crate) duration_seconds: f64,
}

/// Properties of the source's video track that apply to every rung.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    /// FFmpeg's stream index.
    pub(crate) stream: usize,
    pub(crate) shape: FrameShape,
    /// True if frames may be interlaced.
    pub(crate) deinterlace: bool,
    /// The decoder, if it is not FFmpeg's default.
    pub(crate) decoder: Option<&'static str>,
    /// The pixel format in which frames are put over black; absent if they have no alpha channel.
    pub(crate) alpha: Option<&'static str>,
    /// Meaning of the source's colour values.
    pub(crate) colour: Colour,
    /// Time base of the encoded rungs: the source's, so that frames keep their times, but with ticks short
    /// enough to express a time between two frames.
    pub(crate) time_base: String,
    /// Ticks per second of the source's clock.
    pub(crate) timescale: u32,
    /// How encoded rungs are held; absent if the source's frames suffice.
    pub(crate) hold: Option<Hold>,
    /// Start of the rungs in seconds.
    pub(crate) start_seconds: f64,
    /// End of the rungs in seconds; 0 if unknown.
    pub(crate) end_seconds: f64,
    /// Duration of the source's track in seconds; 0 if unknown.
    pub(crate) duration_seconds: f64,
    /// Number of the source's frames, if known.
    pub(crate) frames: Option<u64>,
}

/// Size, shape and orientation of the source's largest frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FrameShape {
    /// Stored width and height in pixels.
    pub(crate) size: (u32, u32),
    /// Pixel aspect ratio, width to height.
    pub(crate) pixel_aspect: f64,
    /// Orientation for display, of all frames.
    pub(crate) orientation: Orientation,
}

impl FrameShape {
    /// Width to height, before the turn for display.
    #[must_use]
    pub(crate) fn aspect(&self) -> f64 {
        let (width, height) = self.size;
        f64::from(width) * self.pixel_aspect / f64::from(height)
    }

    /// Upright frames with square pixels.
    #[cfg(test)]
    pub(crate) fn of_tests(width: u32, height: u32) -> Self {
        Self { size: (width, height), pixel_aspect: 1.0, orientation: Orientation::default() }
    }
}

/// One rung.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VideoRendition {
    /// Unique name in the stream and in its URLs: `1080p` (the shorter side), `1080p-av1`.
    pub(crate) name: String,
    pub(crate) codec: Codec,
    /// Even, in square pixels.
    pub(crate) width: u32,
    /// Even, in square pixels.
    pub(crate) height: u32,
    /// Average frames per second.
    pub(crate) frame_rate: f64,
    /// Maximum rate in kbit/s.
    pub(crate) max_kbps: u32,
    /// Encoder settings; absent for a copied rung.
    pub(crate) encoding: Option<Encoding>,
    /// The encoded beginning of a copied rung.
    pub(crate) encoded_prefix: Option<EncodedPrefix>,
    /// The H.264 level to state for a copied rung whose own statement is far too high (`level_idc`).
    pub(crate) level: Option<u8>,
}

/// The encoded beginning of a copied rung whose first keyframes are far apart. It gives the rung the same
/// short segments as the other rungs. With different segments, browsers show a still picture after a switch
/// until the next keyframe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EncodedPrefix {
    /// The first interval with copied frames.
    pub(crate) until: i64,
    /// Settings of the H.264 encoder. Its parameter sets differ from the source's, and the init segment holds
    /// both.
    pub(crate) encoding: Encoding,
}

/// Encoder settings of a rung.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Encoding {
    /// Constant rate factor.
    pub(crate) crf: f64,
    pub(crate) preset: String,
    /// Encoder parameters as `name=value:name=value`; may be empty.
    pub(crate) params: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AudioRendition {
    /// Unique name in the stream and in its URLs: `eng`, `und`, `eng-2`, `eng-5.1`.
    pub(crate) name: String,
    /// Name in the player's menu.
    pub(crate) label: String,
    /// ISO 639 code or RFC 5646 tag.
    pub(crate) language: Option<String>,
    /// FFmpeg's stream index.
    pub(crate) stream: usize,
    /// FFmpeg's stream index of the right channel, if the two channels are mono tracks.
    pub(crate) right: Option<usize>,
    /// The way from the source's channels to this layout.
    pub(crate) downmix: Downmix,
    pub(crate) role: Role,
    /// In Hz.
    pub(crate) sample_rate: u32,
    /// Number of channels: one, two, or the source's for surround.
    pub(crate) channels: u32,
    /// Channel layout by FFmpeg's name: `stereo`, `5.1`; absent for a copied track.
    pub(crate) layout: Option<&'static str>,
    /// Bit rate in kbit/s.
    pub(crate) kbps: u32,
    /// Gain to the profile's loudness; absent before the measurement, for silence, and without a loudness
    /// target.
    pub(crate) gain: Option<Gain>,
    /// Duration of the source's track in seconds; 0 if unknown.
    pub(crate) duration_seconds: f64,
    /// True if silence must precede the track.
    pub(crate) begins_late: bool,
    /// Start time of the source's track in seconds.
    pub(crate) start_seconds: f64,
    /// End time of the source's track in seconds; 0 unless it comes from the samples (headers and tags are
    /// not reliable).
    pub(crate) end_seconds: f64,
    /// End time of the stream in seconds; silence fills the track up to it. 0 if unknown.
    pub(crate) at_least_seconds: f64,
}

#[cfg(test)]
impl AudioRendition {
    /// An encoded stereo rendition.
    pub(crate) fn of_tests(stream: usize, duration_seconds: f64) -> Self {
        Self {
            name: "und".into(),
            label: "Audio".into(),
            language: None,
            stream,
            right: None,
            downmix: Downmix::Standard,
            role: Role::default(),
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

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SubtitleRendition {
    /// Unique name in the stream and in its URLs: `eng`, `und-2`.
    pub(crate) name: String,
    /// Name in the player's menu.
    pub(crate) label: String,
    /// ISO 639 code or RFC 5646 tag.
    pub(crate) language: Option<String>,
    /// FFmpeg's stream index.
    pub(crate) stream: usize,
    pub(crate) role: Role,
    /// True if the source's format is ASS or SSA.
    pub(crate) is_ass: bool,
}

impl VideoRendition {
    /// Returns true if the source's own track is published, after the encoded prefix if there is one.
    #[must_use]
    pub(crate) fn is_copied(&self) -> bool {
        self.encoding.is_none()
    }
}

impl AudioRendition {
    /// Returns true if the source's own track is published.
    #[must_use]
    pub(crate) fn is_copied(&self) -> bool {
        self.layout.is_none()
    }
}

impl Plan {
    /// Returns true if any rendition is copied.
    #[must_use]
    pub(crate) fn copies(&self) -> bool {
        self.rungs.iter().any(VideoRendition::is_copied) || self.audio.iter().any(AudioRendition::is_copied)
    }

    /// The encoded prefix of the first rung, if segments of it remain from interval `first` on.
    #[must_use]
    pub(crate) fn encoded_prefix(&self, first: i64) -> Option<&EncodedPrefix> {
        self.rungs.first()?.encoded_prefix.as_ref().filter(|prefix| first < prefix.until)
    }
}

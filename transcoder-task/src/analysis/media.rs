//! The model of a source: its tracks, with the properties that the plan needs.

use std::fmt;

use serde::Deserialize;
use vidstreamx_job as job;

use super::{extents::Claim, orientation::Orientation};

/// A source's usable tracks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Media {
    /// FFmpeg's name of the container format.
    pub(crate) format: String,
    /// End of the last video or audio track; 0 if unknown.
    pub(crate) duration_seconds: f64,
    /// Start of the first track on the file's clock. All times here count from it, as in FFmpeg's filters and
    /// encoders.
    pub(crate) start_seconds: f64,
    /// The video track to publish.
    pub(crate) video: Option<Video>,
    /// All audio tracks that can be decoded.
    pub(crate) audio: Vec<Audio>,
    /// All text subtitle tracks.
    pub(crate) subtitles: Vec<Subtitle>,
    /// In order.
    pub(crate) chapters: Vec<Chapter>,
    /// Warnings about dropped tracks and wrong headers.
    pub(crate) warnings: Vec<String>,
    /// Durations in the tags of tracks.
    pub(crate) claims: Vec<Claim>,
}

/// A video track as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Video {
    /// FFmpeg's stream index.
    pub(crate) index: usize,
    /// The container's track number, if it has one.
    pub(crate) id: Option<u32>,
    /// FFmpeg's name.
    pub(crate) codec: String,
    /// The container's name, usually four characters: `avc1`, `hvc1`, `dvh1`.
    pub(crate) codec_tag: String,
    /// FFmpeg's name: `High`, `Main 10`.
    pub(crate) profile: Option<String>,
    /// In the codec's own unit: 41 is H.264's level 4.1, 123 is HEVC's 4.1.
    pub(crate) level: Option<u32>,
    /// Stored size of the largest frames in pixels.
    pub(crate) width: u32,
    /// Stored size of the largest frames in pixels.
    pub(crate) height: u32,
    /// Pixel aspect ratio, width to height.
    pub(crate) pixel_aspect: f64,
    pub(crate) orientation: Orientation,
    /// True if the container states a display matrix that is not the identity.
    pub(crate) transformed: bool,
    /// Frames per second, on average.
    pub(crate) frame_rate: f64,
    /// The lowest rate at which every frame has its own time; equal to [`Self::frame_rate`] if that is
    /// constant.
    pub(crate) base_frame_rate: f64,
    /// Number of frames, if known.
    pub(crate) frames: Option<u64>,
    /// Seconds per tick of the track's clock, as `1/15360`.
    pub(crate) time_base: String,
    /// FFmpeg's name of the decoder to use instead of the default.
    pub(crate) decoder: Option<&'static str>,
    /// FFmpeg's name.
    pub(crate) pixel_format: String,
    /// Bits per sample of a plane.
    pub(crate) bits: u32,
    pub(crate) colour: ColourDescription,
    /// True if decoding and presentation order differ.
    pub(crate) reordered: bool,
    /// True if some frames have another size or shape than the first ones.
    pub(crate) changes: bool,
    /// True if frames may consist of two fields. The frames' own flags tell which ones do.
    pub(crate) interlaced: bool,
    /// In bits per second; 0 if unknown.
    pub(crate) bit_rate: u64,
    /// Start of the first frame, counted from [`Media::start_seconds`].
    pub(crate) start_seconds: f64,
    /// Duration; 0 if unknown.
    pub(crate) duration_seconds: f64,
}

impl Video {
    /// Width and height in square pixels, turned for display.
    pub(crate) fn display_size(&self) -> (f64, f64) {
        let (width, height) = (f64::from(self.width) * self.pixel_aspect, f64::from(self.height));
        if self.orientation.swaps_sides() { (height, width) } else { (width, height) }
    }
}

/// Colour tags with FFmpeg's names; `None` if neither bitstream nor container has one. If they disagree,
/// FFmpeg and ffprobe use the bitstream's.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColourDescription {
    /// 0 to 255 instead of 16 to 235.
    pub(crate) full_range: Option<bool>,
    /// Matrix: `bt709`, `bt2020nc`.
    pub(crate) space: Option<String>,
    /// `bt709`, `smpte2084` (PQ), `arib-std-b67` (HLG).
    pub(crate) transfer: Option<String>,
    /// `bt709`, `bt2020`.
    pub(crate) primaries: Option<String>,
    /// The brightest pixel in cd/m², if known.
    pub(crate) peak_nits: Option<f64>,
    /// Dolby Vision's profile, and the base layer's compatibility (1: HDR10, 2: SDR, 4: HLG, 0: none).
    pub(crate) dolby_vision: Option<(u32, u32)>,
}

/// The dynamic range of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DynamicRange {
    Sdr,
    /// PQ, with or without metadata.
    Hdr10,
    Hlg,
    /// Profile and base layer compatibility, as in [`ColourDescription::dolby_vision`].
    DolbyVision(u32, u32),
}

impl ColourDescription {
    /// The dynamic range from Dolby Vision's record, else from the transfer function.
    pub(crate) fn dynamic_range(&self) -> DynamicRange {
        match (self.dolby_vision, self.transfer.as_deref()) {
            (Some((profile, compatibility)), _) => DynamicRange::DolbyVision(profile, compatibility),
            (None, Some("smpte2084")) => DynamicRange::Hdr10,
            (None, Some("arib-std-b67")) => DynamicRange::Hlg,
            (None, _) => DynamicRange::Sdr,
        }
    }
}

impl fmt::Display for DynamicRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sdr => formatter.write_str("sdr"),
            Self::Hdr10 => formatter.write_str("hdr10"),
            Self::Hlg => formatter.write_str("hlg"),
            Self::DolbyVision(profile, 0) => write!(formatter, "dolby-vision-{profile}"),
            Self::DolbyVision(profile, compatibility) => {
                write!(formatter, "dolby-vision-{profile}.{compatibility}")
            }
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Audio {
    /// FFmpeg's stream index.
    pub(crate) index: usize,
    /// The container's track number, if it has one.
    pub(crate) id: Option<u32>,
    /// FFmpeg's name.
    pub(crate) codec: String,
    /// FFmpeg's name: `LC`, `HE-AAC`.
    pub(crate) profile: Option<String>,
    pub(crate) channels: u32,
    /// FFmpeg's name: `stereo`, `5.1(side)`.
    pub(crate) channel_layout: Option<String>,
    /// In Hz.
    pub(crate) sample_rate: u32,
    /// In bits per second; 0 if unknown.
    pub(crate) bit_rate: u64,
    /// ISO 639 code or RFC 5646 tag, unless undetermined (see [`super::language_code::canonical`]).
    pub(crate) language: Option<String>,
    /// The track's own title.
    pub(crate) title: Option<String>,
    pub(crate) role: Role,
    /// FFmpeg's stream index of the mono track that is the right channel, if this mono track is the left one.
    /// `channels` counts both.
    pub(crate) right: Option<usize>,
    pub(crate) downmix: Downmix,
    /// Start of the first sample, counted from [`Media::start_seconds`].
    pub(crate) start_seconds: f64,
    /// Duration; 0 if unknown.
    pub(crate) duration_seconds: f64,
    /// True if the duration comes from the track's samples and not from a header.
    pub(crate) is_measured: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Subtitle {
    /// FFmpeg's stream index.
    pub(crate) index: usize,
    /// The container's track number, if it has one.
    pub(crate) id: Option<u32>,
    /// FFmpeg's name.
    pub(crate) codec: String,
    /// ISO 639 code or RFC 5646 tag, unless undetermined (see [`super::language_code::canonical`]).
    pub(crate) language: Option<String>,
    /// The track's own title.
    pub(crate) title: Option<String>,
    pub(crate) role: Role,
}

/// The way to two channels (or one).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Downmix {
    /// FFmpeg mixes the layout, or guesses it by the number of channels.
    #[default]
    Standard,
    /// Three channels without a layout: left, right and centre. FFmpeg would guess 2.1 and drop the third
    /// one.
    FrontThree,
    /// FFmpeg mixes these channels, but only in this order. Names are FFmpeg's.
    Reordered(Vec<&'static str>),
    /// FFmpeg cannot mix the layout. The first two channels are the main ones by convention.
    FirstTwo,
}

/// The role of a track, by its flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Role {
    /// The default track.
    #[serde(deserialize_with = "flag")]
    pub(crate) default: bool,
    /// The original language.
    #[serde(deserialize_with = "flag")]
    pub(crate) original: bool,
    /// A translation.
    #[serde(deserialize_with = "flag")]
    pub(crate) dub: bool,
    /// A commentary.
    #[serde(deserialize_with = "flag")]
    pub(crate) comment: bool,
    /// Shown even if subtitles are off: translations of a foreign language.
    #[serde(deserialize_with = "flag")]
    pub(crate) forced: bool,
    /// For viewers with impaired hearing.
    #[serde(deserialize_with = "flag")]
    pub(crate) hearing_impaired: bool,
    /// The same in MP4 files and WebM's track kinds.
    #[serde(deserialize_with = "flag")]
    pub(crate) captions: bool,
    /// For viewers with impaired vision.
    #[serde(deserialize_with = "flag")]
    pub(crate) visual_impaired: bool,
    /// The same in WebM's track kinds.
    #[serde(deserialize_with = "flag")]
    pub(crate) descriptions: bool,
}

impl Role {
    /// Returns true for an audio description: a voice tells what the picture shows.
    #[must_use]
    pub(crate) fn describes_video(self) -> bool {
        self.visual_impaired || self.descriptions
    }

    /// Returns true for subtitles that also describe music and sounds.
    #[must_use]
    pub(crate) fn describes_sound(self) -> bool {
        self.hearing_impaired || self.captions
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chapter {
    /// Counts from [`Media::start_seconds`].
    pub(crate) start_seconds: f64,
    /// Counts from [`Media::start_seconds`].
    pub(crate) end_seconds: f64,
    pub(crate) title: Option<String>,
}

/// Parses ffprobe's 0 or 1.
pub(super) fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    u8::deserialize(deserializer).map(|number| number != 0)
}

impl From<&Media> for job::Probe {
    fn from(media: &Media) -> Self {
        Self {
            format: media.format.clone(),
            duration_seconds: media.duration_seconds,
            video: media.video.as_ref().map(|video| {
                let (width, height) = video.display_size();
                job::VideoTrack {
                    codec: video.codec.clone(),
                    width: width.round() as u32,
                    height: height.round() as u32,
                    frame_rate: video.frame_rate,
                    rotation: video.orientation.degrees(),
                    pixel_format: video.pixel_format.clone(),
                    dynamic_range: video.colour.dynamic_range().to_string(),
                    bit_rate: video.bit_rate,
                }
            }),
            audio: media
                .audio
                .iter()
                .map(|audio| job::AudioTrack {
                    codec: audio.codec.clone(),
                    channels: audio.channels,
                    sample_rate: audio.sample_rate,
                    language: audio.language.clone(),
                    title: audio.title.clone(),
                })
                .collect(),
            subtitles: media
                .subtitles
                .iter()
                .map(|subtitle| job::SubtitleTrack {
                    codec: subtitle.codec.clone(),
                    language: subtitle.language.clone(),
                    title: subtitle.title.clone(),
                    forced: subtitle.role.forced,
                })
                .collect(),
            chapters: media
                .chapters
                .iter()
                .map(|chapter| job::Chapter {
                    start_seconds: chapter.start_seconds,
                    end_seconds: chapter.end_seconds,
                    title: chapter.title.clone(),
                })
                .collect(),
        }
    }
}

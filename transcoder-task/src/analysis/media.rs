//! The tracks of a source, as far as the plan needs them.

use std::fmt;

use serde::Deserialize;
use vidstreamx_job as job;

/// A source's usable tracks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Media {
    /// FFmpeg's name of the container format.
    pub(crate) format: String,
    /// Of the longest track; 0 if the file does not say.
    pub(crate) duration_seconds: f64,
    /// The instant of the file's clock at which its first track begins. FFmpeg's filters and encoders, and
    /// all times here, count from there.
    pub(crate) start_seconds: f64,
    /// The first video track that is no cover art.
    pub(crate) video: Option<Video>,
    /// Every audio track that can be decoded.
    pub(crate) audio: Vec<Audio>,
    /// Every track of text to be shown with the picture.
    pub(crate) subtitles: Vec<Subtitle>,
    /// In order.
    pub(crate) chapters: Vec<Chapter>,
    /// What was left out, for people.
    pub(crate) warnings: Vec<String>,
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
    /// The container's name, four characters as a rule: `avc1`, `hvc1`, `dvh1`.
    pub(crate) codec_tag: String,
    /// FFmpeg's name: `High`, `Main 10`.
    pub(crate) profile: Option<String>,
    /// In the codec's own unit: 41 is H.264's level 4.1, 123 is HEVC's 4.1.
    pub(crate) level: Option<u32>,
    /// Stored, in pixels.
    pub(crate) width: u32,
    /// Stored, in pixels.
    pub(crate) height: u32,
    /// Pixel aspect ratio, width to height.
    pub(crate) pixel_aspect: f64,
    /// Clockwise degrees for display: 0, 90, 180, 270.
    pub(crate) rotation: u32,
    /// Frames per second, on average.
    pub(crate) frame_rate: f64,
    /// The lowest rate in which every frame has a place of its own: as [`Self::frame_rate`] if that is
    /// constant.
    pub(crate) base_frame_rate: f64,
    /// How many, if the container says.
    pub(crate) frames: Option<u64>,
    /// Seconds per tick of the track's clock, as `1/15360`.
    pub(crate) time_base: String,
    /// FFmpeg's name.
    pub(crate) pixel_format: String,
    /// Of one sample of one plane.
    pub(crate) bits: u32,
    /// What the numbers of a pixel mean.
    pub(crate) colour: Colour,
    /// Frames are stored in another order than they are shown in.
    pub(crate) reordered: bool,
    /// Anything but progressive.
    pub(crate) interlaced: bool,
    /// In bits per second; 0 if the file does not say.
    pub(crate) bit_rate: u64,
    /// Of the first frame, after [`Media::start_seconds`].
    pub(crate) start_seconds: f64,
    /// 0 if the file does not say.
    pub(crate) duration_seconds: f64,
}

impl Video {
    /// Width and height as shown, in square pixels: what FFmpeg's own turning gives, scaled to square pixels.
    pub(crate) fn display_size(&self) -> (f64, f64) {
        let (width, height) = (f64::from(self.width) * self.pixel_aspect, f64::from(self.height));
        if self.rotation % 180 == 90 { (height, width) } else { (width, height) }
    }
}

/// How a picture's numbers are to be seen. FFmpeg's names; `None` where neither bitstream nor container says.
/// Where they disagree FFmpeg, when it decodes, and ffprobe go by the bitstream.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Colour {
    /// 0 to 255 instead of 16 to 235.
    pub(crate) full_range: Option<bool>,
    /// Matrix: `bt709`, `bt2020nc`.
    pub(crate) space: Option<String>,
    /// `bt709`, `smpte2084` (PQ), `arib-std-b67` (HLG).
    pub(crate) transfer: Option<String>,
    /// `bt709`, `bt2020`.
    pub(crate) primaries: Option<String>,
    /// The brightest pixel in cd/m², if the container says.
    pub(crate) peak_nits: Option<f64>,
    /// Dolby Vision's profile and what its base layer is without Dolby's data (1: HDR10, 2: SDR, 4: HLG, 0:
    /// nothing that can be shown).
    pub(crate) dolby_vision: Option<(u32, u32)>,
}

/// What has to happen to a picture's brightness before an ordinary screen can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DynamicRange {
    /// Nothing.
    Sdr,
    /// PQ, with or without metadata.
    Hdr10,
    /// Hybrid log-gamma.
    Hlg,
    /// Profile and base layer compatibility, as in [`Colour::dolby_vision`].
    DolbyVision(u32, u32),
}

impl Colour {
    /// Told by Dolby's record if there is one, else by the transfer function alone.
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

/// An audio track.
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
    /// How many.
    pub(crate) channels: u32,
    /// FFmpeg's name: `stereo`, `5.1(side)`.
    pub(crate) channel_layout: Option<String>,
    /// In Hz.
    pub(crate) sample_rate: u32,
    /// In bits per second; 0 if the file does not say.
    pub(crate) bit_rate: u64,
    /// ISO 639-2 code, unless undetermined.
    pub(crate) language: Option<String>,
    /// The track's own title.
    pub(crate) title: Option<String>,
    /// What the track is for.
    pub(crate) role: Role,
    /// Of the first sample, after [`Media::start_seconds`].
    pub(crate) start_seconds: f64,
    /// 0 if the file does not say.
    pub(crate) duration_seconds: f64,
}

/// A track of text to be shown with the picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Subtitle {
    /// FFmpeg's stream index.
    pub(crate) index: usize,
    /// The container's track number, if it has one.
    pub(crate) id: Option<u32>,
    /// FFmpeg's name.
    pub(crate) codec: String,
    /// ISO 639-2 code, unless undetermined.
    pub(crate) language: Option<String>,
    /// The track's own title.
    pub(crate) title: Option<String>,
    /// What the track is for.
    pub(crate) role: Role,
}

/// What a track is for, as far as the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Role {
    /// Chosen where the viewer chooses nothing.
    #[serde(deserialize_with = "flag")]
    pub(crate) default: bool,
    /// In the language the film was made in.
    #[serde(deserialize_with = "flag")]
    pub(crate) original: bool,
    /// A commentary.
    #[serde(deserialize_with = "flag")]
    pub(crate) comment: bool,
    /// To be shown even without being asked for: what is said in a foreign language.
    #[serde(deserialize_with = "flag")]
    pub(crate) forced: bool,
    /// For people who hear badly.
    #[serde(deserialize_with = "flag")]
    pub(crate) hearing_impaired: bool,
    /// For people who see badly.
    #[serde(deserialize_with = "flag")]
    pub(crate) visual_impaired: bool,
}

/// A part of the video with a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chapter {
    /// After [`Media::start_seconds`].
    pub(crate) start_seconds: f64,
    /// After [`Media::start_seconds`].
    pub(crate) end_seconds: f64,
    /// Its name, if it has one.
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
                    rotation: video.rotation,
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

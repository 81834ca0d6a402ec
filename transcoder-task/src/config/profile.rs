//! The profile: formats, ladder and encoder settings, as validated data with a built-in default.

use std::path::Path;

use serde::Deserialize;

/// Formats, ladder and encoder settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Profile {
    /// Published formats, in any combination.
    pub(crate) formats: Vec<Format>,
    /// Time of publication.
    pub(crate) publish: Publish,
    /// Segment duration in seconds. The first segments are shorter. Every segment begins with a keyframe.
    pub(crate) segment_seconds: f64,
    /// AAC bit rate in kbit/s for stereo. Mono gets three quarters of it, surround as much for each pair of
    /// channels.
    pub(crate) audio_kbps: u32,
    /// Loudness target in LUFS for every audio track (EBU R128); absent for unchanged loudness.
    pub(crate) loudness: Option<f64>,
    /// The rungs, in any order.
    #[serde(rename = "rung")]
    pub(crate) rungs: Vec<Rung>,
}

/// Additions to x264's `veryfast`, measured: `trellis` gains 1.1 VMAF for 5 % more time; weaker adaptive
/// quantisation saves 1 to 3 % of the bytes at the same VMAF; weighted prediction saves half of the bytes in
/// fades. Adaptive B-frames gain less than the same time spent on motion search, so they are off.
const X264_PARAMS: &str = "trellis=1:weightp=1:aq-strength=0.9:b-adapt=0";

/// A published format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// `master.m3u8`, playable while the encoder runs.
    Hls,
    /// `manifest.mpd` over the same segments.
    Dash,
    /// One progressive file for each rung.
    Mp4,
}

/// Time when a stream appears at its stable address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Publish {
    /// As soon as every rendition has its first segment; playlists grow.
    #[default]
    Growing,
    /// When it is complete and verified.
    Complete,
}

/// The codec of a rung, in the order of the master playlist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Codec {
    /// Played everywhere.
    #[default]
    H264,
    /// A third smaller than H.264; played by Apple devices and most televisions.
    Hevc,
    /// A third smaller than H.264; played by newer devices and all browsers except Safari.
    Av1,
}

impl Codec {
    /// The name in a profile.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
        }
    }

    /// A preset that is several times faster than the encoder's default for a small loss of quality.
    const fn default_preset(self) -> &'static str {
        match self {
            Self::H264 => "veryfast",
            Self::Hevc => "fast",
            Self::Av1 => "10",
        }
    }

    /// Parameters that improve the default preset.
    const fn default_params(self) -> &'static str {
        match self {
            Self::H264 => X264_PARAMS,
            Self::Hevc | Self::Av1 => "",
        }
    }
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rung {
    /// The shorter side in pixels.
    pub(crate) size: u32,
    #[serde(default)]
    pub(crate) codec: Codec,
    /// Constant rate factor; lower means better quality and more bytes.
    pub(crate) crf: f64,
    /// Preset of the encoder; slower presets need fewer bytes.
    #[serde(default)]
    preset: Option<String>,
    /// Parameters of x264, x265 or SVT-AV1 as `name=value:name=value`.
    #[serde(default)]
    params: Option<String>,
    /// Maximum rate in kbit/s up to 30 frames per second; 1.5 times as much above.
    pub(crate) max_kbps: u32,
}

impl Rung {
    #[must_use]
    pub(crate) fn preset(&self) -> &str {
        self.preset.as_deref().unwrap_or(self.codec.default_preset())
    }

    /// Encoder parameters. The defaults apply only with the default preset.
    #[must_use]
    pub(crate) fn params(&self) -> &str {
        let default = if self.preset.is_none() { self.codec.default_params() } else { "" };
        self.params.as_deref().unwrap_or(default)
    }
}

/// An invalid profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("--profile {path}: {error} (give `default` or the path of a TOML file)")]
    Read { path: String, error: std::io::Error },
    /// Not TOML, an unknown field, or a value of the wrong type. The message names line and field.
    #[error("--profile {path}: {error}")]
    Parse { path: String, error: Box<toml::de::Error> },
    /// A value out of range.
    #[error("profile: {field} is {value}, expected {expected}")]
    Field { field: String, value: String, expected: &'static str },
}

impl Default for Profile {
    /// The fastest settings that lose at most 0.5 VMAF against x264's `medium` at CRF 23, with about as many
    /// bytes (docs/BENCHMARKS.md). The largest rungs dominate the time, so small ones use a better motion
    /// search. A longer lookahead costs memory but no time, and lets one CRF fit easy and hard content.
    /// Maximum rates are 1.5 times the rate of rich natural content (trees in the wind) at this quality.
    fn default() -> Self {
        let rung = |size, crf, params: &str, max_kbps| Rung {
            size,
            codec: Codec::H264,
            crf,
            preset: Some("veryfast".into()),
            params: Some(format!("{X264_PARAMS}:{params}")),
            max_kbps,
        };
        Self {
            formats: vec![Format::Hls, Format::Dash],
            publish: Publish::Growing,
            segment_seconds: 4.0,
            audio_kbps: 128,
            loudness: None,
            rungs: vec![
                rung(2160, 23.0, "subme=2:rc-lookahead=20", 32_000),
                rung(1440, 23.0, "subme=2:rc-lookahead=20", 20_000),
                rung(1080, 22.9, "subme=2:rc-lookahead=20", 12_000),
                rung(720, 22.7, "subme=2:rc-lookahead=40", 6_000),
                rung(480, 23.0, "subme=3:rc-lookahead=40", 3_300),
                rung(360, 22.5, "subme=4:rc-lookahead=40", 2_300),
                rung(240, 22.6, "subme=4:rc-lookahead=40", 1_300),
            ],
        }
    }
}

impl Profile {
    /// Returns true if the stream is published while it grows.
    #[must_use]
    pub(crate) fn grows(&self) -> bool {
        self.publish == Publish::Growing && self.formats.contains(&Format::Hls)
    }

    /// The built-in profile's name.
    pub(crate) const DEFAULT_NAME: &str = "default";

    /// Loads the built-in profile or a TOML file.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or a value is out of range.
    pub(crate) fn load(name: &str) -> Result<Self, ProfileError> {
        if name == Self::DEFAULT_NAME {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|error| ProfileError::Read { path: name.to_owned(), error })?;
        let profile: Self = toml::from_str(&text)
            .map_err(|error| ProfileError::Parse { path: name.to_owned(), error: Box::new(error) })?;
        profile.validate()?;
        Ok(profile)
    }

    /// A text that differs between profiles. It is part of a job's identity.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    fn validate(&self) -> Result<(), ProfileError> {
        const X26X_PRESETS: [&str; 9] =
            ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
        let field = |field: &str, value: &dyn std::fmt::Display, expected| {
            Err(ProfileError::Field { field: field.to_owned(), value: value.to_string(), expected })
        };
        if self.formats.is_empty() {
            return field("formats", &"empty", "at least one of hls, dash, mp4");
        }
        if !(1.0..=10.0).contains(&self.segment_seconds) {
            return field("segment_seconds", &self.segment_seconds, "1 to 10 seconds");
        }
        if !(32..=512).contains(&self.audio_kbps) {
            return field("audio_kbps", &self.audio_kbps, "32 to 512 kbit/s");
        }
        if let Some(loudness) = self.loudness.filter(|loudness| !(-40.0..=-5.0).contains(loudness)) {
            return field("loudness", &loudness, "-40 to -5 LUFS (streaming services use -14 to -24)");
        }
        if !self.rungs.iter().any(|rung| rung.codec == Codec::H264) {
            return field(
                "rung",
                &"without h264",
                "at least one rung with codec = \"h264\", which every player decodes",
            );
        }
        for (index, rung) in self.rungs.iter().enumerate() {
            let name = |of| format!("rung[{index}].{of}");
            if !(64..=4320).contains(&rung.size) || rung.size % 2 != 0 {
                return field(&name("size"), &rung.size, "an even number of pixels from 64 to 4320");
            }
            let (highest_crf, crf) = match rung.codec {
                Codec::H264 | Codec::Hevc => (51.0, "0 to 51"),
                Codec::Av1 => (63.0, "0 to 63"),
            };
            if !(0.0..=highest_crf).contains(&rung.crf) {
                return field(&name("crf"), &rung.crf, crf);
            }
            let preset = rung.preset();
            let (known, presets) = match rung.codec {
                Codec::H264 | Codec::Hevc => {
                    (X26X_PRESETS.contains(&preset), "a preset of x264 and x265, ultrafast to veryslow")
                }
                Codec::Av1 => (
                    preset.parse::<u8>().is_ok_and(|preset| preset <= 13),
                    "a preset of SVT-AV1, \"0\" (slowest) to \"13\"",
                ),
            };
            if !known {
                return field(&name("preset"), &preset, presets);
            }
            // Other characters could inject an FFmpeg option.
            let is_word = |word: &str| {
                !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.,".contains(&byte))
            };
            let is_pair = |pair: &str| {
                pair.split_once('=').is_some_and(|(name, value)| is_word(name) && is_word(value))
            };
            if !rung.params().is_empty() && !rung.params().split(':').all(is_pair) {
                return field(&name("params"), &rung.params(), "name=value:name=value");
            }
            if !(50..=200_000).contains(&rung.max_kbps) {
                return field(&name("max_kbps"), &rung.max_kbps, "50 to 200000 kbit/s");
            }
            let same = |other: &Rung| other.size == rung.size && other.codec == rung.codec;
            if self.rungs.iter().skip(index + 1).any(same) {
                return field(&name("size"), &rung.size, "each size once for each codec");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Profile, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Profile::load(file.path().to_str().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_profile_is_valid() {
        Profile::default().validate().unwrap();
    }

    #[test]
    fn missing_fields_have_default_values() {
        let profile = load("[[rung]]\nsize = 720\ncrf = 23\nmax_kbps = 2500").unwrap();
        let rung =
            Rung { size: 720, codec: Codec::H264, crf: 23.0, preset: None, params: None, max_kbps: 2500 };
        assert_eq!(profile.rungs, [rung]);
        assert_eq!(profile.segment_seconds, Profile::default().segment_seconds);
    }

    #[test]
    fn errors_name_field_value_and_expectation() {
        for (text, expected) in [
            ("segment_seconds = 60", "segment_seconds is 60, expected 1 to 10 seconds"),
            ("formats = []", "formats is empty, expected at least one of hls, dash, mp4"),
            ("formats = [\"avi\"]", "unknown variant `avi`, expected one of `hls`, `dash`, `mp4`"),
            ("loudness = 16", "loudness is 16, expected -40 to -5 LUFS"),
            ("rung = []", "rung is without h264, expected at least one rung with codec"),
            ("[[rung]]\nsize = 720\ncodec = \"av1\"\ncrf = 35\nmax_kbps = 900", "rung is without h264"),
            ("[[rung]]\nsize = 720\ncrf = 60\nmax_kbps = 900", "rung[0].crf is 60, expected 0 to 51"),
            (
                "[[rung]]\nsize = 720\ncrf = 23\npreset = \"warp\"\nmax_kbps = 900",
                "rung[0].preset is warp, expected a preset of x264",
            ),
            ("[[rung]]\nsize = 721\ncrf = 23\nmax_kbps = 2500", "rung[0].size is 721, expected an even"),
            ("bitrate = 5", "unknown field `bitrate`"),
            ("audio_kbps = \"loud\"", "invalid type: string \"loud\", expected u32"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let without_value =
            load("[[rung]]\nsize = 720\ncrf = 23\nparams = \"ref\"\nmax_kbps = 900").unwrap_err();
        assert!(
            without_value.contains("rung[0].params is ref, expected name=value:name=value"),
            "{without_value}"
        );
        let mixed = load(
            "[[rung]]\nsize = 720\ncrf = 23\nmax_kbps = 900\n\
             [[rung]]\nsize = 720\ncodec = \"av1\"\ncrf = 35\nmax_kbps = 900",
        );
        assert_eq!(mixed.unwrap().rungs[1].preset(), "10");
        assert!(Profile::load("/no/such.toml").unwrap_err().to_string().contains("/no/such.toml"));
    }
}

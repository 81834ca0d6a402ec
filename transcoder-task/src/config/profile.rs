//! The profile: what is made of a video, as validated data with a built-in default.

use std::path::Path;

use serde::Deserialize;

/// A ladder and the settings that go with it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What is published, in any combination.
    pub formats: Vec<Format>,
    /// When the stream can be played.
    pub publish: Publish,
    /// Length of a segment in seconds, the first four's excepted, which together have it; every segment
    /// begins with a keyframe.
    pub segment_seconds: f64,
    /// AAC bit rate in kbit/s for a stereo track; other layouts get as much for each pair of channels.
    pub audio_kbps: u32,
    /// Loudness in LUFS that every audio track is brought to (EBU R128); untouched if not given.
    pub loudness: Option<f64>,
    /// The rungs, in any order.
    #[serde(rename = "rung")]
    pub rungs: Vec<Rung>,
}

/// For x264's `veryfast`: `trellis` is worth 1.1 VMAF for 5 % of its time, weaker adaptive quantisation saves
/// 1 to 3 % of the bytes at the same VMAF, weighted prediction half of them in fades, and choosing B-frames
/// adaptively is worth less than the same time spent on the search.
const X264_PARAMS: &str = "trellis=1:weightp=1:aq-strength=0.9:b-adapt=0";

/// What can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `master.m3u8`, playable while it is being made.
    Hls,
    /// `manifest.mpd`, over the same segments.
    Dash,
    /// One progressive file for each rung.
    Mp4,
}

/// When a stream takes its stable address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// As soon as every rendition has its first segment; playlists grow.
    #[default]
    Growing,
    /// When all of it is there and verified.
    Complete,
}

/// What a rung is encoded in. In the order in which players are offered them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Played everywhere.
    #[default]
    H264,
    /// About a third smaller; Apple devices and most televisions.
    Hevc,
    /// About a third smaller; browsers but Safari, newer devices.
    Av1,
}

impl Codec {
    /// As in a profile.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
        }
    }

    /// Where the encoder is several times faster than with its own default, for a little quality.
    const fn default_preset(self) -> &'static str {
        match self {
            Self::H264 => "veryfast",
            Self::Hevc => "fast",
            Self::Av1 => "10",
        }
    }

    /// What the default preset lacks.
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
pub struct Rung {
    /// The shorter side in pixels.
    pub size: u32,
    /// What it is encoded in.
    #[serde(default)]
    pub codec: Codec,
    /// The encoder's constant rate factor: lower is better and larger.
    pub crf: f64,
    /// The encoder's preset: how much time is spent on compactness.
    #[serde(default)]
    preset: Option<String>,
    /// Further parameters of the encoder (x264's, x265's or SVT-AV1's own), as `name=value:name=value`.
    #[serde(default)]
    params: Option<String>,
    /// Cap in kbit/s up to 30 frames per second; half as much again above.
    pub max_kbps: u32,
}

impl Rung {
    /// The encoder's preset.
    pub fn preset(&self) -> &str {
        self.preset.as_deref().unwrap_or(self.codec.default_preset())
    }

    /// Further parameters; those of the default preset only with that.
    pub fn params(&self) -> &str {
        let default = if self.preset.is_none() { self.codec.default_params() } else { "" };
        self.params.as_deref().unwrap_or(default)
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("--profile {path}: {error} (give `default` or the path of a TOML file)")]
    Read {
        /// As given.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Not TOML, or an unknown or mistyped field.
    #[error("--profile {path}: {error}")]
    Parse {
        /// As given.
        path: String,
        /// Names line, field and what was expected.
        error: Box<toml::de::Error>,
    },
    /// A field's value is out of its range.
    #[error("profile: {field} is {value}, expected {expected}")]
    Field {
        /// Its name.
        field: String,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Default for Profile {
    /// Measured (docs/BENCHMARKS.md) for at most 0.5 VMAF under x264's `medium` at CRF 23 and about as many
    /// bytes, as quickly as that goes. The largest rungs decide the time; small ones are worth a better
    /// search. Looking further ahead costs memory but no time, and makes one CRF fit easy and hard content.
    /// Caps are half as much again as what the same quality takes of rich natural content (trees in the
    /// wind).
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
    /// Whether a stream can be played before it is complete.
    pub fn grows(&self) -> bool {
        self.publish == Publish::Growing && self.formats.contains(&Format::Hls)
    }

    /// The built-in profile's name.
    pub const DEFAULT_NAME: &str = "default";

    /// The built-in profile, or one from a TOML file.
    pub fn load(name: &str) -> Result<Self, ProfileError> {
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

    /// Tells profiles apart in a job's identity.
    pub fn fingerprint(&self) -> String {
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
                "at least one rung with codec = \"h264\", which every player takes",
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
            // Anything else would be an option of FFmpeg's, or none.
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
    fn the_default_is_valid() {
        Profile::default().validate().unwrap();
    }

    #[test]
    fn what_is_not_said_is_as_in_the_default() {
        let profile = load("[[rung]]\nsize = 720\ncrf = 23\nmax_kbps = 2500").unwrap();
        let rung =
            Rung { size: 720, codec: Codec::H264, crf: 23.0, preset: None, params: None, max_kbps: 2500 };
        assert_eq!(profile.rungs, [rung]);
        assert_eq!(profile.segment_seconds, Profile::default().segment_seconds);
    }

    #[test]
    fn errors_name_field_value_and_what_was_expected() {
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
        let open = load("[[rung]]\nsize = 720\ncrf = 23\nparams = \"ref\"\nmax_kbps = 900").unwrap_err();
        assert!(open.contains("rung[0].params is ref, expected name=value:name=value"), "{open}");
        let mixed = load(
            "[[rung]]\nsize = 720\ncrf = 23\nmax_kbps = 900\n\
             [[rung]]\nsize = 720\ncodec = \"av1\"\ncrf = 35\nmax_kbps = 900",
        );
        assert_eq!(mixed.unwrap().rungs[1].preset(), "10");
        assert!(Profile::load("/no/such.toml").unwrap_err().to_string().contains("/no/such.toml"));
    }
}

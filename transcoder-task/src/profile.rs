//! The profile: what is made of a video, as validated data with a built-in default.

use std::path::Path;

use serde::Deserialize;

/// A ladder and the settings that go with it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Length of a segment in seconds; every segment begins with a keyframe.
    pub segment_seconds: f64,
    /// AAC bit rate in kbit/s for a stereo track.
    pub audio_kbps: u32,
    /// x264's preset.
    pub preset: String,
    /// The rungs, in any order.
    #[serde(rename = "rung")]
    pub rungs: Vec<Rung>,
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// The shorter side in pixels.
    pub size: u32,
    /// x264's constant rate factor: lower is better and larger.
    pub crf: f64,
    /// Cap in kbit/s up to 30 frames per second; half as much again above.
    pub max_kbps: u32,
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
    /// Caps follow the upper half of Apple's authoring table for H.264; CRF and preset were chosen for at
    /// most 0.5 VMAF under x264's `medium` at CRF 23 for a third of its time.
    fn default() -> Self {
        let rung = |size, max_kbps| Rung { size, crf: 22.5, max_kbps };
        Self {
            segment_seconds: 4.0,
            audio_kbps: 128,
            preset: "faster".into(),
            rungs: vec![
                rung(2160, 16_000),
                rung(1440, 9_000),
                rung(1080, 5_500),
                rung(720, 3_000),
                rung(480, 1_600),
                rung(360, 900),
                rung(240, 450),
            ],
        }
    }
}

impl Profile {
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
        const PRESETS: [&str; 9] =
            ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
        let field = |field: &str, value: &dyn std::fmt::Display, expected| {
            Err(ProfileError::Field { field: field.to_owned(), value: value.to_string(), expected })
        };
        if !(1.0..=10.0).contains(&self.segment_seconds) {
            return field("segment_seconds", &self.segment_seconds, "1 to 10 seconds");
        }
        if !(32..=512).contains(&self.audio_kbps) {
            return field("audio_kbps", &self.audio_kbps, "32 to 512 kbit/s");
        }
        if !PRESETS.contains(&self.preset.as_str()) {
            return field("preset", &self.preset, "one of x264's presets, ultrafast to veryslow");
        }
        if self.rungs.is_empty() {
            return field("rung", &"empty", "at least one rung");
        }
        for (index, rung) in self.rungs.iter().enumerate() {
            let name = |of| format!("rung[{index}].{of}");
            if !(64..=4320).contains(&rung.size) || rung.size % 2 != 0 {
                return field(&name("size"), &rung.size, "an even number of pixels from 64 to 4320");
            }
            if !(0.0..=51.0).contains(&rung.crf) {
                return field(&name("crf"), &rung.crf, "0 to 51");
            }
            if !(50..=200_000).contains(&rung.max_kbps) {
                return field(&name("max_kbps"), &rung.max_kbps, "50 to 200000 kbit/s");
            }
            if self.rungs.iter().skip(index + 1).any(|other| other.size == rung.size) {
                return field(&name("size"), &rung.size, "each size once");
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
        assert_eq!(profile.rungs, [Rung { size: 720, crf: 23.0, max_kbps: 2500 }]);
        assert_eq!(profile.segment_seconds, Profile::default().segment_seconds);
    }

    #[test]
    fn errors_name_field_value_and_what_was_expected() {
        for (text, expected) in [
            ("segment_seconds = 60", "segment_seconds is 60, expected 1 to 10 seconds"),
            ("preset = \"warp\"", "preset is warp, expected one of x264's presets"),
            ("rung = []", "rung is empty, expected at least one rung"),
            ("[[rung]]\nsize = 721\ncrf = 23\nmax_kbps = 2500", "rung[0].size is 721, expected an even"),
            ("bitrate = 5", "unknown field `bitrate`"),
            ("audio_kbps = \"loud\"", "invalid type: string \"loud\", expected u32"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Profile::load("/no/such.toml").unwrap_err().to_string().contains("/no/such.toml"));
    }
}

//! What is made of a source, decided before anything is: a pure function of probe and profile.

use crate::{
    probe::{Audio, Media, Video},
    profile::{Profile, Rung},
};

/// Above this many frames per second a rung's cap is raised by half.
const HIGH_FRAME_RATE: f64 = 31.0;
/// Longest side of a rung: the widest picture of H.264 level 5.2 at 16:9.
const LONGEST_SIDE: f64 = 4096.0;

/// The renditions of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What all rungs share; absent for audio alone.
    pub picture: Option<Picture>,
    /// Largest first; empty for audio alone.
    pub rungs: Vec<VideoRendition>,
    /// One per source track.
    pub audio: Vec<AudioRendition>,
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
    /// The source's clock, which the rungs keep, so that no frame moves.
    pub time_base: String,
    /// Half a frame in seconds: keyframes are forced this much early, because FFmpeg takes the first
    /// frame at or after the forced time and times are rounded.
    pub half_frame_seconds: f64,
    /// Of this track, in seconds; 0 if the file does not say.
    pub duration_seconds: f64,
}

/// One rung.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRendition {
    /// `1080p`: the shorter side.
    pub name: String,
    /// Even, in square pixels.
    pub width: u32,
    /// Even, in square pixels.
    pub height: u32,
    /// x264's constant rate factor.
    pub crf: f64,
    /// Cap of the rate in kbit/s.
    pub max_kbps: u32,
    /// x264's preset.
    pub preset: String,
    /// Frames per second, on average.
    pub frame_rate: f64,
}

/// One audio track of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioRendition {
    /// Unique in the stream, part of its address: `eng`, `und`, `eng-2`.
    pub name: String,
    /// For people.
    pub label: String,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// FFmpeg's stream index.
    pub stream: usize,
    /// In Hz.
    pub sample_rate: u32,
    /// AAC bit rate in kbit/s.
    pub kbps: u32,
    /// Of the source's track, in seconds; 0 if the file does not say.
    pub duration_seconds: f64,
}

/// The instants at which segments of every rendition begin: multiples of one duration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boundaries {
    /// In seconds.
    pub segment_seconds: f64,
    /// A sample this much before a boundary belongs to the segment behind it.
    pub tolerance_seconds: f64,
}

impl Boundaries {
    /// Which interval between boundaries an instant lies in.
    pub fn interval(&self, seconds: f64) -> u64 {
        ((seconds + self.tolerance_seconds) / self.segment_seconds).floor().max(0.0) as u64
    }
}

impl Plan {
    /// The plan for a source.
    pub fn new(media: &Media, profile: &Profile) -> Self {
        let picture = media.video.as_ref().map(picture);
        let boundaries = Boundaries {
            segment_seconds: profile.segment_seconds,
            tolerance_seconds: picture.as_ref().map_or(0.0, |picture| picture.half_frame_seconds),
        };
        Self {
            rungs: media.video.as_ref().map(|video| ladder(video, profile)).unwrap_or_default(),
            audio: audio(&media.audio, profile),
            picture,
            boundaries,
            duration_seconds: media.duration_seconds,
        }
    }
}

fn picture(video: &Video) -> Picture {
    Picture {
        stream: video.index,
        deinterlace: video.interlaced,
        time_base: video.time_base.clone(),
        // At most 1/50 s, so that a slide show's long frames do not pull boundaries forward.
        half_frame_seconds: if video.frame_rate > 25.0 { 0.5 / video.frame_rate } else { 0.02 },
        duration_seconds: video.duration_seconds,
    }
}

/// Every rung of the profile that the source fills, or else one at the source's own size.
fn ladder(video: &Video, profile: &Profile) -> Vec<VideoRendition> {
    let (width, height) = video.display_size();
    let (short, long) = (width.min(height), width.max(height));
    let mut rungs: Vec<&Rung> = profile.rungs.iter().collect();
    rungs.sort_by_key(|rung| std::cmp::Reverse(rung.size));
    let fits = |rung: &&Rung| f64::from(rung.size) <= short.round();
    let smallest = rungs.last().copied();
    let mut chosen: Vec<(u32, &Rung)> =
        rungs.into_iter().filter(fits).map(|rung| (rung.size, rung)).collect();
    if chosen.is_empty() {
        chosen.extend(smallest.map(|rung| (even_down(short), rung)));
    }
    chosen
        .into_iter()
        .map(|(size, rung)| {
            let scale = (f64::from(size) / short).min(LONGEST_SIDE / long);
            let high_rate = video.frame_rate > HIGH_FRAME_RATE;
            VideoRendition {
                name: format!("{size}p"),
                width: even(width * scale, width),
                height: even(height * scale, height),
                crf: rung.crf,
                max_kbps: if high_rate { rung.max_kbps * 3 / 2 } else { rung.max_kbps },
                preset: profile.preset.clone(),
                frame_rate: video.frame_rate,
            }
        })
        .collect()
}

/// The nearest even size that is not above the source's.
fn even(pixels: f64, source: f64) -> u32 {
    let nearest = ((pixels / 2.0).round() * 2.0) as u32;
    nearest.min(even_down(source)).max(2)
}

fn even_down(pixels: f64) -> u32 {
    ((pixels / 2.0 + 1e-6).floor() * 2.0).max(2.0) as u32
}

fn audio(tracks: &[Audio], profile: &Profile) -> Vec<AudioRendition> {
    let mut renditions: Vec<AudioRendition> = Vec::with_capacity(tracks.len());
    for track in tracks {
        let language = track.language.as_deref();
        // Quotes and control characters have no place in a playlist's attribute.
        let title = track.title.as_deref().filter(|title| !title.contains(['"', '\n', '\r']));
        let name = numbered(language.unwrap_or("und"), '-', |name| {
            renditions.iter().any(|other| other.name == name)
        });
        let label = numbered(title.or(language).unwrap_or("Audio"), ' ', |label| {
            renditions.iter().any(|other| other.label == label)
        });
        renditions.push(AudioRendition {
            name,
            label,
            language: track.language.clone(),
            stream: track.index,
            // What AAC players are sure to take.
            sample_rate: if track.sample_rate == 44_100 { 44_100 } else { 48_000 },
            kbps: profile.audio_kbps,
            duration_seconds: track.duration_seconds,
        });
    }
    renditions
}

/// The text itself, or with the first number from 2 on that makes it unique.
fn numbered(text: &str, separator: char, taken: impl Fn(&str) -> bool) -> String {
    let mut unique = text.to_owned();
    let mut number = 1;
    while taken(&unique) {
        number += 1;
        unique = format!("{text}{separator}{number}");
    }
    unique
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn video(width: u32, height: u32) -> Video {
        Video {
            index: 0,
            codec: "h264".into(),
            width,
            height,
            pixel_aspect: 1.0,
            rotation: 0,
            frame_rate: 30.0,
            time_base: "1/15360".into(),
            pixel_format: "yuv420p".into(),
            interlaced: false,
            duration_seconds: 10.0,
        }
    }

    fn sizes(video: &Video) -> Vec<(String, u32, u32)> {
        ladder(video, &Profile::default())
            .into_iter()
            .map(|rung| (rung.name, rung.width, rung.height))
            .collect()
    }

    #[test]
    fn a_ladder_without_upscaling() {
        let names = |video: &Video| sizes(video).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
        assert_eq!(names(&video(1920, 1080)), ["1080p", "720p", "480p", "360p", "240p"]);
        assert_eq!(names(&video(3840, 2160)).len(), 7);
        assert_eq!(sizes(&video(720, 400)), [("360p".into(), 648, 360), ("240p".into(), 432, 240)]);
        assert_eq!(sizes(&video(176, 144)), [("144p".into(), 176, 144)]);
        assert_eq!(sizes(&video(161, 121)), [("120p".into(), 160, 120)]);
        assert_eq!(sizes(&video(1, 1)), [("2p".into(), 2, 2)]);
    }

    #[test]
    fn portrait_is_portrait_and_pixels_become_square() {
        let turned = Video { rotation: 90, ..video(1920, 1080) };
        assert_eq!(sizes(&turned)[0], ("1080p".into(), 1080, 1920));
        let anamorphic = Video { pixel_aspect: 64.0 / 45.0, ..video(720, 576) };
        assert_eq!(sizes(&anamorphic)[0], ("480p".into(), 854, 480));
    }

    #[test]
    fn high_frame_rates_get_a_higher_cap() {
        let fast = Video { frame_rate: 59.94, ..video(1920, 1080) };
        assert_eq!(ladder(&fast, &Profile::default())[0].max_kbps, 8_250);
    }

    #[test]
    fn audio_names_are_unique() {
        let track = |language: Option<&str>| Audio {
            index: 1,
            codec: "aac".into(),
            channels: 2,
            sample_rate: 8000,
            language: language.map(str::to_owned),
            title: None,
            duration_seconds: 1.0,
        };
        let renditions =
            audio(&[track(Some("eng")), track(None), track(Some("eng")), track(None)], &Profile::default());
        let names: Vec<_> =
            renditions.iter().map(|audio| (audio.name.as_str(), audio.label.as_str())).collect();
        assert_eq!(names, [("eng", "eng"), ("und", "Audio"), ("eng-2", "eng 2"), ("und-2", "Audio 2")]);
        assert_eq!(renditions[0].sample_rate, 48_000);
        let titled = |language| Audio { title: Some("Stereo".into()), ..track(Some(language)) };
        let labels: Vec<_> = audio(&[titled("eng"), titled("deu")], &Profile::default())
            .into_iter()
            .map(|audio| audio.label)
            .collect();
        assert_eq!(labels, ["Stereo", "Stereo 2"]);
    }

    #[test]
    fn a_frame_just_before_a_boundary_belongs_behind_it() {
        let boundaries = Boundaries { segment_seconds: 4.0, tolerance_seconds: 0.0166 };
        assert_eq!([0.0, 3.95, 3.99, 4.0, 8.1].map(|at| boundaries.interval(at)), [0, 0, 1, 1, 2]);
    }

    proptest! {
        #[test]
        fn rungs_are_even_keep_their_aspect_and_never_grow(
            width in 2_u32..8192, height in 2_u32..8192, turned in any::<bool>(),
        ) {
            let video = Video { rotation: if turned { 270 } else { 0 }, ..video(width, height) };
            let (shown_width, shown_height) = video.display_size();
            let rungs = ladder(&video, &Profile::default());
            prop_assert!(!rungs.is_empty());
            for rung in rungs {
                prop_assert!(rung.width % 2 == 0 && rung.height % 2 == 0);
                prop_assert!(f64::from(rung.width) <= shown_width && f64::from(rung.height) <= shown_height);
                let ideal = shown_width / shown_height * f64::from(rung.height);
                let step = 1.0 + shown_width / shown_height;
                prop_assert!((f64::from(rung.width) - ideal).abs() <= step + 1.0, "{rung:?}");
            }
        }
    }
}

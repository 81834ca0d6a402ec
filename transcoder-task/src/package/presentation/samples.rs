//! Presentations for tests.

use proptest::prelude::*;

use super::*;

/// Contiguous segments of these lengths in ticks. Longer segments have more bytes.
pub(crate) fn timeline(timescale: u32, start_ticks: u64, lengths: &[u64]) -> Timeline {
    let mut next = start_ticks;
    let segments = lengths.iter().map(|&duration_ticks| {
        let start_ticks = next;
        next += duration_ticks;
        let bytes = duration_ticks * 10;
        Published {
            start_ticks,
            duration_ticks,
            samples: 96,
            repeats: 0,
            repeated_ticks: 0,
            bytes,
            key_bytes: bytes / 10,
        }
    });
    Timeline { timescale, segments: segments.collect() }
}

/// A rendition with this average rate. Its peak is a quarter higher.
pub(crate) fn rendition(folder: &str, codecs: &str, average: u64, timeline: Timeline) -> Rendition {
    let rates = Rates { peak: average + average / 4, average };
    Rendition { folder: format!("0123/{folder}"), codecs: codecs.into(), timeline, rates }
}

fn rung(name: &str, codecs: &str, (width, height): (u32, u32), average: u64) -> Variant {
    let video = timeline(30_000, 0, &[120_120, 120_120, 120_120, 45_045]);
    Variant {
        rendition: rendition(&format!("video/{name}"), codecs, average, video),
        width,
        height,
        frame_rate: 29.97003,
        captions: Captions::NONE,
        key_rates: Some(Rates { peak: average / 5, average: average / 8 }),
    }
}

fn layout(name: &str, channels: u32, lengths: &[u64]) -> AudioLayout {
    let average = if channels > 2 { 384_000 } else { 128_000 };
    let audio = timeline(48_000, 0, lengths);
    AudioLayout {
        rendition: rendition(&format!("audio/{name}"), "mp4a.40.2", average, audio),
        channels,
        sample_rate: 48_000,
    }
}

/// A presentation with three codecs, subtitles, and audio in two languages, one of them also in surround.
pub(crate) fn everything() -> Presentation {
    let whole = [192_512, 192_512, 191_488, 72_704];
    let audio_track = |label: &str, language: &str, stereo, surround| AudioTrack {
        label: label.into(),
        language: Some(language.into()),
        role: Role::default(),
        stereo,
        surround,
    };
    let subtitle_track = |name: &str, label: &str, forced| TextRendition {
        rendition: rendition(
            &format!("subtitles/{name}"),
            "",
            400,
            timeline(1000, 0, &[4000, 4000, 4000, 1502]),
        ),
        label: label.into(),
        language: Some("de".into()),
        role: Role { default: forced, forced, ..Role::default() },
    };
    Presentation {
        rungs: vec![
            rung("720p-av1", "av01.0.05M.08", (1280, 720), 1_200_000),
            rung("480p", "avc1.64001f", (854, 480), 900_000),
            rung("1080p", "avc1.640028", (1920, 1080), 4_000_000),
            rung("720p", "avc1.64001f", (1280, 720), 1_900_000),
            rung("1080p-hevc", "hvc1.1.6.L120.90", (1920, 1080), 2_400_000),
        ],
        audio: vec![
            audio_track("English", "en", layout("eng", 2, &whole), Some(layout("eng-surround", 6, &whole))),
            // Ends early.
            audio_track("German", "de", layout("deu", 1, &[192_512, 100_352]), None),
        ],
        subtitles: vec![subtitle_track("deu", "German", false), subtitle_track("deu-2", "German 2", true)],
    }
}

prop_compose! {
    fn any_timeline()(
        timescale in prop::sample::select(vec![1000_u32, 12_800, 30_000, 44_100, 48_000, 90_000]),
        late in 0_u64..3,
        // Few different lengths, so that some neighbours are equal. Some segments follow a gap.
        lengths in prop::collection::vec(
            (prop::sample::select(vec![1_u64, 300, 400, 401]), 0_u64..20),
            1..20,
        ),
    ) -> Timeline {
        let hundredth = u64::from(timescale) / 100;
        let mut next = late * hundredth;
        let segments = lengths.into_iter().map(|(hundredths, gap)| {
            let start_ticks = next + if gap == 0 { hundredth } else { 0 };
            let duration_ticks = hundredths * hundredth;
            next = start_ticks + duration_ticks;
            let bytes = 1000 + gap * 10_000;
            Published {
                start_ticks,
                duration_ticks,
                samples: 1,
                repeats: 0,
                repeated_ticks: 0,
                bytes,
                key_bytes: 500,
            }
        });
        Timeline { timescale, segments: segments.collect() }
    }
}

prop_compose! {
    /// Any presentation that a plan can produce, with measured rates.
    pub(crate) fn any_presentation()(
        rungs in prop::collection::vec(
            (any_timeline(), prop::sample::select(vec!["avc1.64001f", "hvc1.1.6.L93.90", "av01.0.05M.08"])),
            0..6,
        ),
        audio in prop::collection::vec(
            (any_timeline(), prop::option::of("de|en"), any::<bool>(), prop::option::of(any_timeline())),
            0..4,
        ),
        subtitles in prop::collection::vec(
            (any_timeline(), prop::option::of("de|en"), any::<bool>(), any::<bool>()),
            0..4,
        ),
    ) -> Presentation {
        let of = |kind: &str, number: usize, codecs: &str, timeline: Timeline| Rendition {
            folder: format!("0123/{kind}/{number}"),
            codecs: codecs.into(),
            rates: timeline.rates(4),
            timeline,
        };
        let label = |number: usize| format!("<{number}> & \u{e9}'s");
        Presentation {
            rungs: rungs.into_iter().enumerate().map(|(number, (timeline, codecs))| Variant {
                key_rates: Some(timeline.key_rates(4)),
                rendition: of("video", number, codecs, timeline),
                width: 320 + 2 * number as u32,
                height: 180,
                frame_rate: number as f64 * 9.99,
                captions: Captions::NONE,
            }).collect(),
            audio: audio.into_iter().enumerate().map(|(number, (timeline, language, default, surround))| {
                let layout = |kind, channels, timeline| AudioLayout {
                    rendition: of(kind, number, "mp4a.40.2", timeline),
                    channels,
                    sample_rate: 48_000,
                };
                AudioTrack {
                    label: label(number),
                    language,
                    role: Role { default, ..Role::default() },
                    stereo: layout("audio", 2, timeline),
                    surround: surround.map(|timeline| layout("surround", 6, timeline)),
                }
            }).collect(),
            subtitles: subtitles.into_iter().enumerate().map(|(number, track)| {
                let (timeline, language, default, forced) = track;
                TextRendition {
                    rendition: of("subtitles", number, "", timeline),
                    label: label(number),
                    language,
                    role: Role { default, forced, ..Role::default() },
                }
            }).collect(),
        }
    }
}

//! What is made of a source, decided before anything is: a pure function of probe, index and profile.

use sha2::{Digest, Sha256};

use crate::{
    analysis::ffprobe::{Audio, Media, Subtitle, Video},
    analysis::sample_index::{Content, Index},
    config::profile::{Codec, Profile, Rung},
    ffmpeg::arguments,
    ffmpeg::colour::{Colour, Tags},
    ffmpeg::loudness::Change,
    plan::language,
    plan::resume_point::ResumePoint,
    plan::segmentation::{Boundaries, Boundary},
};

/// Above this many frames per second a rung's cap is raised by half.
const HIGH_FRAME_RATE: f64 = 31.0;
/// Longest side of a rung: the widest picture of H.264 level 5.2 at 16:9.
const LONGEST_SIDE: f64 = 4096.0;
/// How much of a rung's cap a source may have on average to be published as it is: 8 Mbit/s for 1080p, which is
/// Mux's limit for what it copies. More would make viewers pay for what they do not see.
const COPY_AVERAGE: f64 = 0.7;
/// As [`COPY_AVERAGE`], for the busiest part.
const COPY_PEAK: f64 = 1.2;
/// Beside a copied rung the others have the source's keyframes, which are fewer as a rule. Frames live on the better
/// quality of keyframes; without those, this much less of the rate factor gives the same (VMAF, measured).
const CRF_WITH_FEWER_KEYFRAMES: f64 = -0.5;
/// Sound up to this rate is published as it is: what encoders make of stereo at their highest settings.
const COPY_STEREO_KBPS: u64 = 260;
/// Seconds at the picture's beginning and end that sound may lack before silence has to be added: players do
/// not stop for less.
const HOLE: f64 = 0.1;

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
    pub change: Option<Change>,
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
            change: None,
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

/// What of a source may be published as it is, by its index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Copyable {
    /// The picture.
    pub video: Option<CopyableVideo>,
    /// FFmpeg's stream indices of AAC-LC tracks.
    pub audio: Vec<usize>,
}

/// A picture that may be published as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyableVideo {
    /// Keyframes that segments can begin with.
    pub boundaries: Boundaries,
    /// Short segments instead of the first ones, if those are long, and the interval that the first keyframe behind them
    /// begins: what lies before it has to be encoded.
    pub encoded_prefix: Option<(Boundaries, i64)>,
    /// Over all of it.
    pub average_kbps: f64,
    /// Of its busiest part.
    pub peak_kbps: f64,
}

impl Copyable {
    /// What the index allows for, on the clock that FFmpeg's outputs have. Says in the log what it does not.
    pub fn new(index: &Index, media: &Media, segment_seconds: f64) -> Self {
        let content = |id: Option<u32>| id.and_then(|id| index.track(id)).map(|track| &track.content);
        let video = media.video.as_ref().and_then(|video| match content(video.id)? {
            Content::Video(Ok(copy)) => Some(copy),
            Content::Video(Err(reason)) => {
                tracing::info!("the picture has to be encoded: {reason}");
                None
            }
            Content::Audio(_) | Content::Other => None,
        });
        let on_the_streams_clock = |boundary: &Boundary| Boundary {
            at_seconds: boundary.at_seconds - media.start_seconds,
            before_seconds: boundary.before_seconds - media.start_seconds,
        };
        let video = video.and_then(|copy| match copy.boundaries(segment_seconds) {
            Ok(keyframes) => {
                let at = |starts: &mut dyn Iterator<Item = &Boundary>| {
                    let end = on_the_streams_clock(&copy.end_boundary());
                    Boundaries::at(starts.map(on_the_streams_clock).collect(), end, segment_seconds)
                };
                let encoded_prefix = copy.encoded_prefix(&keyframes, segment_seconds);
                Some(CopyableVideo {
                    boundaries: at(&mut keyframes.iter())?,
                    encoded_prefix: encoded_prefix.and_then(|(encoded_prefix, next)| {
                        let starts = at(&mut encoded_prefix.iter().chain(keyframes.iter().skip(next)))?;
                        Some((starts, encoded_prefix.len() as i64))
                    }),
                    average_kbps: copy.average_bitrate() as f64 / 1000.0,
                    peak_kbps: copy.peak_bitrate() as f64 / 1000.0,
                })
            }
            Err(reason) => {
                tracing::info!("the picture has to be encoded: {reason}");
                None
            }
        });
        let copyable = |track: &&Audio| matches!(content(track.id), Some(Content::Audio(Ok(_))));
        let audio = media.audio.iter().filter(copyable).map(|track| track.index).collect();
        Self { video, audio }
    }
}

impl Plan {
    /// Whether anything is published as it is.
    pub fn copies(&self) -> bool {
        self.rungs.iter().any(|rung| rung.encoding.is_none())
            || self.audio.iter().any(|track| track.layout.is_none())
    }

    /// What is encoded from `start` on in front of the first rung, if that is published as it is.
    pub fn encoded_prefix(&self, start: Option<&ResumePoint>) -> Option<&EncodedPrefix> {
        let first = start.map_or(0, |start| start.interval);
        self.rungs.first()?.encoded_prefix.as_ref().filter(|encoded_prefix| first < encoded_prefix.until)
    }

    /// Eight hex digits that are the same as long as the same is made in the same way: what is published stays valid, and
    /// may be gone on with. `made_by` is what else decides what comes out.
    pub fn id(&self, made_by: &[&str]) -> String {
        let mut hash = Sha256::new();
        let processes = arguments::processes(self, None);
        let arguments = processes.iter().map(|process| arguments::arguments(self, process, &[], "", 0));
        let arguments: Vec<_> = arguments.collect();
        hash.update(format!("{self:?} {arguments:?} {made_by:?} {}", env!("CARGO_PKG_VERSION")));
        hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The plan for a source.
    pub fn new(media: &Media, copyable: &Copyable, profile: &Profile) -> Self {
        let video = media.video.as_ref();
        let mut rungs = video.map(|video| ladder(video, profile)).unwrap_or_default();
        // What is only copied is there at once.
        let waits = profile.grows() && rungs.len() > 1;
        let copied = match (video, &copyable.video, rungs.first_mut()) {
            (Some(video), Some(copy), Some(top)) if is_what_it_wants(video, copy, top) => {
                let encoded_prefix = copy.encoded_prefix.as_ref().filter(|_| waits);
                let peak_kbps = copy.peak_kbps.ceil() as u32;
                top.encoded_prefix = top
                    .encoding
                    .take()
                    .zip(encoded_prefix)
                    .map(|(encoding, (_, until))| EncodedPrefix { until: *until, encoding });
                // What is encoded may take what other encoders would have taken: a source of very little may need more.
                top.max_kbps =
                    if top.encoded_prefix.is_some() { peak_kbps.max(top.max_kbps) } else { peak_kbps };
                for encoding in rungs.iter_mut().filter_map(|rung| rung.encoding.as_mut()) {
                    encoding.crf = (encoding.crf + CRF_WITH_FEWER_KEYFRAMES).max(0.0);
                }
                Some(encoded_prefix.map_or(&copy.boundaries, |(boundaries, _)| boundaries).clone())
            }
            _ => None,
        };
        let grid = || Boundaries::every(profile.segment_seconds, video.map_or(0.0, |video| video.frame_rate));
        Self {
            picture: video.map(picture),
            rungs,
            audio: audio(media, &copyable.audio, profile),
            subtitles: subtitles(&media.subtitles),
            boundaries: copied.unwrap_or_else(grid),
            duration_seconds: media.duration_seconds,
        }
    }
}

/// Whether a source is already what a rung would be made into.
fn is_what_it_wants(video: &Video, copy: &CopyableVideo, rung: &VideoRendition) -> bool {
    let cap = f64::from(rung.max_kbps);
    rung.codec == Codec::H264
        && (rung.width, rung.height) == (video.width, video.height)
        && video.rotation == 0
        && !video.interlaced
        && video.pixel_format == "yuv420p"
        && colour(video).is_ordinary()
        && copy.average_kbps <= cap * COPY_AVERAGE
        && copy.peak_kbps <= cap * COPY_PEAK
}

fn picture(video: &Video) -> Picture {
    Picture {
        stream: video.index,
        deinterlace: video.interlaced,
        colour: colour(video),
        time_base: fine(&video.time_base),
        timescale: video
            .time_base
            .split_once('/')
            .and_then(|(_, ticks)| ticks.parse().ok())
            .unwrap_or(90_000),
        start_seconds: video.start_seconds,
        duration_seconds: video.duration_seconds,
        end_seconds: match video.duration_seconds {
            unknown if unknown <= 0.0 => 0.0,
            known => video.start_seconds + known,
        },
        frames: video.frames,
    }
}

/// The same clock with ticks short enough for an instant between two frames: some have one tick per frame.
fn fine(time_base: &str) -> String {
    const TICKS_PER_SECOND: u64 = 10_000;
    let parsed =
        time_base.split_once('/').and_then(|(n, d)| Some((n.parse::<u64>().ok()?, d.parse::<u64>().ok()?)));
    match parsed {
        Some((numerator @ 1.., denominator @ 1..)) => {
            let times = (TICKS_PER_SECOND.saturating_mul(numerator)).div_ceil(denominator);
            format!("{numerator}/{}", denominator.saturating_mul(times))
        }
        _ => "1/90000".to_owned(),
    }
}

fn colour(video: &Video) -> Colour {
    let colour = &video.colour;
    Colour::of(&Tags {
        pixel_format: &video.pixel_format,
        matrix: colour.space.as_deref(),
        transfer: colour.transfer.as_deref(),
        primaries: colour.primaries.as_deref(),
        full_range: colour.full_range == Some(true),
        width: video.width,
        height: video.height,
        dolby_vision: colour.dolby_vision,
        peak: colour.peak_nits,
    })
}

/// For each codec every rung of the profile that the source fills, or else one at the source's own size.
fn ladder(video: &Video, profile: &Profile) -> Vec<VideoRendition> {
    let (width, height) = video.display_size();
    let (short, long) = (width.min(height), width.max(height));
    let mut wanted: Vec<&Rung> = profile.rungs.iter().collect();
    wanted.sort_by_key(|rung| (rung.codec, std::cmp::Reverse(rung.size)));
    let mut chosen: Vec<(u32, &Rung)> = Vec::with_capacity(wanted.len());
    for rungs in wanted.chunk_by(|one, other| one.codec == other.codec) {
        let too_large = rungs.partition_point(|rung| f64::from(rung.size) > short.round());
        match (rungs.split_at(too_large), rungs.last()) {
            ((_, []), Some(smallest)) => chosen.push((even_down(short), smallest)),
            ((_, fitting), _) => chosen.extend(fitting.iter().map(|rung| (rung.size, *rung))),
        }
    }
    chosen
        .into_iter()
        .map(|(size, rung)| {
            let scale = (f64::from(size) / short).min(LONGEST_SIDE / long);
            let high_rate = video.frame_rate > HIGH_FRAME_RATE;
            VideoRendition {
                name: match rung.codec {
                    Codec::H264 => format!("{size}p"),
                    codec => format!("{size}p-{}", codec.name()),
                },
                codec: rung.codec,
                width: even(width * scale, width),
                height: even(height * scale, height),
                frame_rate: video.frame_rate,
                max_kbps: if high_rate { rung.max_kbps * 3 / 2 } else { rung.max_kbps },
                encoding: Some(Encoding {
                    crf: rung.crf,
                    preset: rung.preset().to_owned(),
                    params: rung.params().to_owned(),
                }),
                encoded_prefix: None,
            }
        })
        // Very long pictures have the same size in several rungs.
        .fold(Vec::new(), |mut rungs: Vec<VideoRendition>, rung| {
            let same = |other: &VideoRendition| {
                (other.codec, other.width, other.height) == (rung.codec, rung.width, rung.height)
            };
            if !rungs.iter().any(same) {
                rungs.push(rung);
            }
            rungs
        })
}

/// The nearest even size that is not above the source's, of which a part of a pixel counts as one.
fn even(pixels: f64, source: f64) -> u32 {
    let nearest = ((pixels / 2.0).round() * 2.0) as u32;
    nearest.min(even_down(source.ceil())).max(2)
}

fn even_down(pixels: f64) -> u32 {
    ((pixels / 2.0 + 1e-6).floor() * 2.0).max(2.0) as u32
}

/// Every track in stereo, and those of more channels in their own layout too.
fn audio(media: &Media, copyable: &[usize], profile: &Profile) -> Vec<AudioRendition> {
    let tracks = &media.audio;
    let has_tables = media.format.starts_with("mov");
    let picture = media.video.as_ref().filter(|video| video.duration_seconds > 0.0);
    // Some files count what comes before the first frame in its track's length.
    let at_least_seconds = picture
        .map_or(0.0, |video| (video.start_seconds + video.duration_seconds).min(media.duration_seconds));
    let mut renditions: Vec<AudioRendition> = Vec::with_capacity(tracks.len());
    let described: Vec<_> =
        tracks.iter().map(|track| (track.language.as_deref(), track.title.as_deref())).collect();
    for (track, label) in tracks.iter().zip(language::labels(&described, "Audio")) {
        let end_seconds = track.start_seconds + track.duration_seconds;
        let covers_the_picture = track.start_seconds <= HOLE && end_seconds >= at_least_seconds - HOLE;
        // As it is only if nothing is to be changed, and if players are sure to take it.
        let copied = |most_kbps: u64| {
            profile.loudness.is_none()
                && covers_the_picture
                && copyable.contains(&track.index)
                // FFmpeg has looked into the frames, where HE-AAC may hide from the header.
                && track.profile.as_deref() == Some("LC")
                && (32_000..=48_000).contains(&track.sample_rate)
                && (1..=most_kbps * 1000).contains(&track.bit_rate)
        };
        let sample_rate = |copied: bool| match track.sample_rate {
            rate if copied => rate,
            44_100 => 44_100,
            _ => 48_000,
        };
        let (layout, channels, kbps) = match track.channels {
            // Half of what two channels take, and what they save by what they have in common.
            1 => ("mono", 1, profile.audio_kbps * 3 / 4),
            _ => ("stereo", 2, profile.audio_kbps),
        };
        let as_it_is = track.channels <= 2 && copied(COPY_STEREO_KBPS);
        let stereo = AudioRendition {
            name: numbered(track.language.as_deref(), |name| {
                renditions.iter().any(|other| other.name == name)
            }),
            label,
            language: track.language.clone(),
            stream: track.index,
            default: track.role.default,
            sample_rate: sample_rate(as_it_is),
            channels,
            layout: (!as_it_is).then_some(layout),
            kbps,
            change: None,
            duration_seconds: track.duration_seconds,
            begins_late: track.start_seconds > HOLE,
            start_seconds: track.start_seconds,
            end_seconds: if has_tables && track.duration_seconds > 0.0 { end_seconds } else { 0.0 },
            at_least_seconds,
        };
        let surround = surround(track.channel_layout.as_deref()).map(|(layout, channels, pairs)| {
            let as_it_is = copied(COPY_STEREO_KBPS * u64::from(pairs));
            AudioRendition {
                name: format!("{}-{layout}", stereo.name),
                sample_rate: sample_rate(as_it_is),
                channels,
                layout: (!as_it_is).then_some(layout),
                kbps: profile.audio_kbps * pairs,
                ..stereo.clone()
            }
        });
        renditions.push(stereo);
        renditions.extend(surround);
    }
    renditions.sort_by_key(|rendition| rendition.channels > 2);
    renditions
}

/// The layouts that AAC carries and players know: FFmpeg's name, channels, and how many times stereo's rate
/// they need.
fn surround(layout: Option<&str>) -> Option<(&'static str, u32, u32)> {
    match layout? {
        "5.1" | "5.1(side)" => Some(("5.1", 6, 3)),
        "7.1" | "7.1(wide)" | "7.1(wide-side)" => Some(("7.1", 8, 4)),
        _ => None,
    }
}

fn subtitles(tracks: &[Subtitle]) -> Vec<SubtitleRendition> {
    let described: Vec<_> =
        tracks.iter().map(|track| (track.language.as_deref(), track.title.as_deref())).collect();
    let mut renditions: Vec<SubtitleRendition> = Vec::with_capacity(tracks.len());
    for (track, label) in tracks.iter().zip(language::labels(&described, "Subtitles")) {
        renditions.push(SubtitleRendition {
            name: numbered(track.language.as_deref(), |name| {
                renditions.iter().any(|other| other.name == name)
            }),
            label,
            language: track.language.clone(),
            stream: track.index,
            default: track.role.default,
            forced: track.role.forced,
        });
    }
    renditions
}

/// A track's name in addresses: its language's code, with the first number from 2 on that makes it unique.
fn numbered(language: Option<&str>, taken: impl Fn(&str) -> bool) -> String {
    let text = language.unwrap_or("und");
    let mut unique = text.to_owned();
    let mut number = 1;
    while taken(&unique) {
        number += 1;
        unique = format!("{text}-{number}");
    }
    unique
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::profile::Publish;

    fn video(width: u32, height: u32) -> Video {
        Video {
            codec: "h264".into(),
            width,
            height,
            pixel_aspect: 1.0,
            frame_rate: 30.0,
            time_base: "1/15360".into(),
            pixel_format: "yuv420p".into(),
            duration_seconds: 10.0,
            ..Video::default()
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
        assert_eq!(ladder(&fast, &Profile::default())[0].max_kbps, 18_000);
    }

    fn track(language: Option<&str>, channel_layout: &str, channels: u32) -> Audio {
        Audio {
            index: 1,
            codec: "aac".into(),
            channels,
            channel_layout: Some(channel_layout.into()),
            sample_rate: 48_000,
            bit_rate: 128_000,
            profile: Some("LC".into()),
            language: language.map(str::to_owned),
            ..Audio::default()
        }
    }

    fn sound(tracks: impl Into<Vec<Audio>>) -> Media {
        Media { audio: tracks.into(), ..Media::default() }
    }

    #[test]
    fn audio_names_are_unique() {
        let stereo = |language| track(language, "stereo", 2);
        let tracks = [stereo(Some("eng")), stereo(None), stereo(Some("eng")), stereo(None)];
        let renditions = audio(&sound(tracks), &[], &Profile::default());
        let names: Vec<_> =
            renditions.iter().map(|audio| (audio.name.as_str(), audio.label.as_str())).collect();
        let expected = [("eng", "English"), ("und", "Audio"), ("eng-2", "English 2"), ("und-2", "Audio 2")];
        assert_eq!(names, expected);
        let telephone = Audio { sample_rate: 8000, ..track(None, "mono", 1) };
        let telephone = &audio(&sound([telephone]), &[1], &Profile::default())[0];
        assert_eq!((telephone.sample_rate, telephone.channels, telephone.layout), (48_000, 1, Some("mono")));
    }

    #[test]
    fn surround_is_there_in_stereo_too() {
        let tracks =
            [track(Some("eng"), "5.1(side)", 6), track(Some("deu"), "stereo", 2), track(None, "4.0", 4)];
        let names = |copyable: &[usize]| -> Vec<_> {
            let renditions = audio(&sound(tracks.clone()), copyable, &Profile::default());
            renditions.into_iter().map(|audio| (audio.name, audio.channels, audio.layout)).collect()
        };
        let stereo = |name: &str| (name.to_owned(), 2, Some("stereo"));
        assert_eq!(
            names(&[]),
            [stereo("eng"), stereo("deu"), stereo("und"), ("eng-5.1".into(), 6, Some("5.1"))]
        );
        assert_eq!(
            names(&[1]),
            [stereo("eng"), ("deu".into(), 2, None), stereo("und"), ("eng-5.1".into(), 6, None)]
        );
    }

    #[test]
    fn sound_is_copied_only_if_nothing_is_to_be_changed() {
        let copied = |track: Audio, loudness| {
            let profile = Profile { loudness, ..Profile::default() };
            let media = Media { video: Some(video(640, 360)), duration_seconds: 10.0, ..sound([track]) };
            audio(&media, &[1], &profile)[0].layout.is_none()
        };
        let stereo = Audio { duration_seconds: 9.95, ..track(None, "stereo", 2) };
        assert!(copied(stereo.clone(), None));
        assert!(!copied(stereo.clone(), Some(-16.0)));
        assert!(!copied(Audio { profile: Some("HE-AAC".into()), ..stereo.clone() }, None));
        assert!(!copied(Audio { bit_rate: 320_000, ..stereo.clone() }, None));
        assert!(!copied(Audio { sample_rate: 96_000, ..stereo.clone() }, None));
        assert!(!copied(Audio { duration_seconds: 9.5, ..stereo.clone() }, None), "the picture lasts 10 s");
        assert!(!copied(Audio { start_seconds: 0.2, ..stereo }, None));
    }

    fn copyable(average_kbps: f64) -> Copyable {
        let keyframe = |at_seconds| Boundary { at_seconds, before_seconds: at_seconds };
        let boundaries = Boundaries::at(vec![keyframe(0.0), keyframe(8.3)], keyframe(10.0), 4.0).unwrap();
        let video = CopyableVideo { boundaries, encoded_prefix: None, average_kbps, peak_kbps: average_kbps };
        Copyable { video: Some(video), audio: Vec::new() }
    }

    #[test]
    fn what_is_encoded_in_front_of_a_source_of_very_little_is_not_held_to_that() {
        let mut copyable = copyable(20.0);
        let copy = copyable.video.as_mut().unwrap();
        copy.encoded_prefix = Some((copy.boundaries.clone(), 1));
        let top = |size, profile: &Profile| {
            let media = Media { video: Some(size), ..Media::default() };
            let top = Plan::new(&media, &copyable, profile).rungs.remove(0);
            (top.encoded_prefix.map(|encoded_prefix| encoded_prefix.until), top.max_kbps)
        };
        let growing = Profile::default();
        assert_eq!(top(video(1920, 1080), &growing), (Some(1), 12_000));
        assert_eq!(top(video(426, 240), &growing), (None, 20), "nothing else has to be waited for");
        let complete = Profile { publish: Publish::Complete, ..growing };
        assert_eq!(top(video(1920, 1080), &complete), (None, 20));
    }

    #[test]
    fn the_top_rung_is_the_source_where_it_is_what_the_rung_wants() {
        let copies = |video: Video, kbps: f64| {
            let media = Media { video: Some(video), ..Media::default() };
            let plan = Plan::new(&media, &copyable(kbps), &Profile::default());
            assert!(plan.rungs.iter().skip(1).all(|rung| rung.encoding.is_some()));
            let copied = plan.rungs[0].encoding.is_none();
            assert_eq!(copied, matches!(plan.boundaries, Boundaries::At { .. }));
            copied
        };
        let good = video(1920, 1080);
        assert!(copies(good.clone(), 8_300.0));
        assert!(!copies(good.clone(), 8_500.0), "more than the rung needs");
        assert!(!copies(video(1918, 1078), 3_000.0), "between two rungs");
        assert!(!copies(Video { rotation: 90, ..good.clone() }, 3_000.0));
        assert!(!copies(Video { rotation: 180, ..good.clone() }, 3_000.0));
        assert!(!copies(Video { interlaced: true, ..good.clone() }, 3_000.0));
        assert!(!copies(Video { pixel_aspect: 4.0 / 3.0, ..video(1440, 1080) }, 3_000.0));
        assert!(!copies(Video { pixel_format: "yuv420p10le".into(), ..good.clone() }, 3_000.0));
        let tagged = |change: fn(&mut crate::analysis::ffprobe::Colour)| {
            let mut video = good.clone();
            change(&mut video.colour);
            video
        };
        assert!(!copies(tagged(|colour| colour.full_range = Some(true)), 3_000.0));
        assert!(!copies(tagged(|colour| colour.transfer = Some("smpte2084".into())), 3_000.0));
        assert!(copies(tagged(|colour| colour.space = Some("bt709".into())), 3_000.0));
    }

    #[test]
    fn each_codec_has_a_ladder_of_its_own_and_h264_is_first() {
        let rung = |size: u32, codec: &str| {
            format!("[[rung]]\nsize = {size}\ncodec = \"{codec}\"\ncrf = 30\nmax_kbps = 900\n")
        };
        let text = [rung(720, "av1"), rung(1080, "hevc"), rung(360, "h264"), rung(720, "h264")].concat();
        let profile: Profile = toml::from_str(&text).unwrap();
        let names = |video: &Video| -> Vec<_> {
            ladder(video, &profile).into_iter().map(|rung| (rung.name, rung.width)).collect()
        };
        let expected = [("720p", 1280), ("360p", 640), ("1080p-hevc", 1920), ("720p-av1", 1280)]
            .map(|(n, w)| (n.into(), w));
        assert_eq!(names(&video(1920, 1080)), expected);
        let expected = [("240p", 320), ("240p-hevc", 320), ("240p-av1", 320)].map(|(n, w)| (n.into(), w));
        assert_eq!(names(&video(320, 240)), expected);
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

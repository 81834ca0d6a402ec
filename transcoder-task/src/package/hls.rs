//! The stream's manifests: what they describe, and HLS playlists (RFC 8216 and Apple's authoring rules).
//! [`crate::package::dash`] writes the same presentation as an MPD.

use std::collections::HashMap;

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ByteRange, ClosedCaptionGroupId, Map, MasterPlaylist,
    MediaPlaylist, MediaPlaylistType, MediaSegment, QuotedOrUnquoted, Resolution, Start, VariantStream,
};

/// The features used here need version 6 (EXT-X-MAP for more than I-frames, RFC 8216 section 7); Apple's own
/// tools write 7 for fragmented MP4.
const VERSION: usize = 7;
const SUBTITLES_GROUP: &str = "subtitles";
/// Players begin with the variant that is listed first, and hls.js takes its rate for the network's until it
/// has measured that. Apple's authoring rules want the one nearest to this average there.
const FIRST_VARIANT_BITS: u64 = 2_000_000;

/// A segment as manifests need it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// When the first of its samples is shown, on the rendition's clock: with frames of several lengths and B
    /// frames that is not when the first is decoded.
    pub start_ticks: u64,
    /// From there to the end of the sample that is shown last.
    pub duration_ticks: u64,
    /// How many samples (frames).
    pub samples: usize,
    /// Its size.
    pub bytes: u64,
    /// From its beginning to the end of its first sample: on their own they decode to one picture. 0 for what
    /// has no pictures.
    pub key_bytes: u64,
}

/// The segments of a rendition in order, and its clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    /// Ticks per second; 0 before anything is known.
    pub timescale: u32,
    /// From number 0.
    pub segments: Vec<Published>,
}

impl Timeline {
    /// The first segments alone.
    pub fn first(&self, segments: usize) -> Self {
        Self { segments: self.segments.iter().take(segments).copied().collect(), ..*self }
    }

    /// An instant or a length on this clock, in seconds.
    pub fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.timescale.max(1))
    }

    /// Of all segments.
    pub fn duration_seconds(&self) -> f64 {
        self.seconds(self.segments.iter().map(|segment| segment.duration_ticks).sum())
    }

    /// Of the longest segment.
    pub fn longest_seconds(&self) -> f64 {
        self.seconds(self.segments.iter().map(|segment| segment.duration_ticks).max().unwrap_or(0))
    }

    /// When the last segment's last sample ends.
    pub fn end_seconds(&self) -> f64 {
        self.seconds(self.segments.last().map_or(0, |last| last.start_ticks + last.duration_ticks))
    }

    /// What fetching it takes.
    pub fn rates(&self, target_seconds: u64) -> Rates {
        self.measured(target_seconds, |segment| segment.bytes)
    }

    /// What fetching its I-frame playlist takes.
    pub fn key_rates(&self, target_seconds: u64) -> Rates {
        self.measured(target_seconds, |segment| segment.key_bytes)
    }

    /// The peak is that of RFC 8216 section 4.1: of any segments in a row that last between half and one and a
    /// half of the target duration, so that a last segment of a frame or two counts only with the one before.
    fn measured(&self, target_seconds: u64, bytes: impl Fn(&Published) -> u64) -> Rates {
        let bits = |bytes: u64, ticks: u64| {
            let of_a_second = u128::from(bytes) * 8 * u128::from(self.timescale);
            if ticks == 0 { 0 } else { of_a_second.div_ceil(ticks.into()) as u64 }
        };
        let (shortest, longest) = (target_seconds as f64 * 0.5, target_seconds as f64 * 1.5);
        let mut peak = 0;
        for first in 0..self.segments.len() {
            let (mut total, mut ticks) = (0, 0);
            for segment in self.segments.iter().skip(first) {
                total += bytes(segment);
                ticks += segment.duration_ticks;
                match self.seconds(ticks) {
                    seconds if seconds > longest => break,
                    seconds if seconds >= shortest => peak = peak.max(bits(total, ticks)),
                    _ => {}
                }
            }
        }
        let total = |of: &dyn Fn(&Published) -> u64| self.segments.iter().map(of).sum();
        let average = bits(total(&bytes), total(&|segment| segment.duration_ticks));
        Rates { peak: peak.max(average), average }
    }
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Of the busiest stretch of about a segment's length; at least the average.
    pub peak: u64,
    /// Over all segments.
    pub average: u64,
}

impl Rates {
    fn plus(self, other: Self) -> Self {
        Self { peak: self.peak + other.peak, average: self.average + other.average }
    }

    fn of_the_busiest<'a>(renditions: impl Iterator<Item = &'a Rendition>) -> Self {
        renditions.map(|rendition| rendition.rates).fold(Self::default(), |most, rates| Self {
            peak: most.peak.max(rates.peak),
            average: most.average.max(rates.average),
        })
    }
}

/// Everything that a viewer can choose from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Presentation {
    /// In any order; none for audio alone.
    pub rungs: Vec<Variant>,
    /// One per source track, in the source's order.
    pub sounds: Vec<Sound>,
    /// One per source track, in the source's order.
    pub texts: Vec<Text>,
}

/// A folder of segments with their playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendition {
    /// Relative to the manifests: `0123/video/1080p`. Part of addresses as it is.
    pub folder: String,
    /// RFC 6381, of this rendition alone; empty for subtitles.
    pub codecs: String,
    /// What there is to play.
    pub timeline: Timeline,
    /// Measured, or planned while it grows.
    pub rates: Rates,
}

/// A rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The picture alone.
    pub rendition: Rendition,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// On average; 0 if unknown.
    pub frame_rate: f64,
    /// Of its I-frame playlist, once there is one.
    pub key_rates: Option<Rates>,
}

/// A source's audio track.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Shown to people; unique among sounds (see [`crate::plan::language::labels`]).
    pub label: String,
    /// RFC 5646.
    pub language: Option<String>,
    /// Plays if nobody chooses; the first such one counts, or else the first.
    pub default: bool,
    /// In one or two channels: what every player can play.
    pub stereo: Layout,
    /// In more channels.
    pub surround: Option<Layout>,
}

/// An audio track in one channel layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The sound alone.
    pub rendition: Rendition,
    /// How many.
    pub channels: u32,
    /// In Hz.
    pub sample_rate: u32,
}

/// A subtitle track: its folder holds a playlist with segments, and the whole of it as one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// Of WebVTT.
    pub rendition: Rendition,
    /// Shown to people; unique among texts.
    pub label: String,
    /// RFC 5646.
    pub language: Option<String>,
    /// Shown if nobody chooses; at most the first such one is.
    pub default: bool,
    /// Only what everybody must read, such as the translation of signs.
    pub forced: bool,
}

/// Video codecs in the order of how many players take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Played everywhere.
    H264,
    /// Played where the hardware is licensed.
    Hevc,
    /// Played by newer browsers and devices.
    Av1,
}

impl Variant {
    /// Its codec.
    pub fn family(&self) -> Family {
        match self.rendition.codecs.split('.').next() {
            Some("hvc1" | "hev1") => Family::Hevc,
            Some("av01") => Family::Av1,
            _ => Family::H264,
        }
    }
}

impl Presentation {
    /// The rungs by codec, most played first, and the largest first within one.
    pub fn sorted_rungs(&self) -> Vec<&Variant> {
        let mut rungs: Vec<&Variant> = self.rungs.iter().collect();
        rungs.sort_by_key(|rung| {
            let pixels = u64::from(rung.width) * u64::from(rung.height);
            (rung.family(), std::cmp::Reverse((pixels, rung.rendition.rates.peak)))
        });
        rungs
    }

    /// The one that plays if nobody chooses, then the others in the source's order. Players that do not look
    /// at what is marked as default (Shaka Player 5, where channel counts match) take the first.
    pub fn sorted_sounds(&self) -> Vec<&Sound> {
        let mut sounds: Vec<&Sound> = self.sounds.iter().collect();
        let default = sounds.iter().position(|sound| sound.default).unwrap_or(0);
        if let Some(up_to_default) = sounds.get_mut(..=default) {
            up_to_default.rotate_right(1);
        }
        sounds
    }
}

/// The address of a media segment, next to its playlist.
pub fn segment_name(number: usize) -> String {
    format!("seg-{number:05}.m4s")
}

/// The address of a subtitle segment, next to its playlist.
pub fn text_segment_name(number: usize) -> String {
    format!("seg-{number:05}.vtt")
}

/// The address of the init segment, next to its playlist.
pub const INIT_NAME: &str = "init.mp4";
/// The address of a media playlist in its rendition's folder.
pub const MEDIA_NAME: &str = "index.m3u8";
/// The address of an I-frame playlist in its rung's folder.
pub const I_FRAMES_NAME: &str = "iframes.m3u8";
/// The address of a subtitle track as one file in its folder.
pub const TEXT_NAME: &str = "subtitles.vtt";

/// The target duration of all playlists of a stream, which must be the same in each and must not change while
/// they grow: the plan's longest segment, unless a published one is longer all the same (a source with long
/// frames).
pub fn target_duration<'a>(planned_seconds: f64, timelines: impl Iterator<Item = &'a Timeline>) -> u64 {
    // A player compares rounded durations with it (RFC 8216 section 4.3.3.1).
    let longest = timelines.map(|timeline| timeline.longest_seconds().round()).fold(0.0, f64::max);
    planned_seconds.ceil().max(longest).max(1.0) as u64
}

/// A media playlist of fragmented MP4: growing (EVENT), or final (VOD).
pub fn media(timeline: &Timeline, target_seconds: u64, finished: bool) -> Vec<u8> {
    write(MediaPlaylist {
        independent_segments: true,
        playlist_type: Some(if finished { MediaPlaylistType::Vod } else { MediaPlaylistType::Event }),
        // Players would begin where a live event is now.
        start: (!finished).then(|| Start { time_offset: 0.0, ..Start::default() }),
        end_list: finished,
        ..playlist(timeline, target_seconds, Some(INIT_NAME), segment_name)
    })
}

/// A rung's final I-frame playlist: of each segment the bytes that hold its first picture.
pub fn i_frames(timeline: &Timeline, target_seconds: u64) -> Vec<u8> {
    let mut playlist = MediaPlaylist {
        i_frames_only: true,
        playlist_type: Some(MediaPlaylistType::Vod),
        end_list: true,
        ..playlist(timeline, target_seconds, Some(INIT_NAME), segment_name)
    };
    for (segment, published) in playlist.segments.iter_mut().zip(&timeline.segments) {
        segment.byte_range = Some(ByteRange { length: published.key_bytes, offset: Some(0) });
    }
    write(playlist)
}

/// The final playlist of a subtitle track's segments.
pub fn subtitles(timeline: &Timeline, target_seconds: u64) -> Vec<u8> {
    write(MediaPlaylist {
        playlist_type: Some(MediaPlaylistType::Vod),
        end_list: true,
        ..playlist(timeline, target_seconds, None, text_segment_name)
    })
}

fn playlist(
    timeline: &Timeline,
    target_seconds: u64,
    init: Option<&str>,
    name: fn(usize) -> String,
) -> MediaPlaylist {
    let segments = timeline.segments.iter().enumerate().map(|(number, segment)| MediaSegment {
        uri: name(number),
        // Off by at most 2^-23 of itself when read again: 10 milliseconds over 24 hours.
        duration: timeline.seconds(segment.duration_ticks) as f32,
        map: init.filter(|_| number == 0).map(|uri| Map { uri: uri.into(), ..Map::default() }),
        ..MediaSegment::default()
    });
    MediaPlaylist {
        version: Some(VERSION),
        target_duration: target_seconds,
        segments: segments.collect(),
        ..MediaPlaylist::default()
    }
}

/// An audio group: stereo, or surround.
struct Group<'a> {
    id: &'static str,
    /// One of each sound: RFC 8216 section 4.3.4.2.1 wants the same members in every group, so a track that
    /// is only in stereo is in the surround group as well.
    layouts: Vec<&'a Layout>,
    codecs: Vec<&'a str>,
    rates: Rates,
}

impl<'a> Group<'a> {
    fn new(id: &'static str, layouts: Vec<&'a Layout>) -> Self {
        let mut codecs: Vec<&str> = layouts.iter().map(|layout| layout.rendition.codecs.as_str()).collect();
        codecs.sort_unstable();
        codecs.dedup();
        let rates = Rates::of_the_busiest(layouts.iter().map(|layout| &layout.rendition));
        Self { id, layouts, codecs, rates }
    }

    fn all(sounds: &[&'a Sound]) -> Vec<Self> {
        let mut groups = Vec::new();
        if !sounds.is_empty() {
            groups.push(Self::new("stereo", sounds.iter().map(|sound| &sound.stereo).collect()));
        }
        if sounds.iter().any(|sound| sound.surround.is_some()) {
            let widest = |sound: &&'a Sound| sound.surround.as_ref().unwrap_or(&sound.stereo);
            groups.push(Self::new("surround", sounds.iter().map(widest).collect()));
        }
        groups
    }

    fn members(&self, sounds: &[&Sound]) -> Vec<AlternativeMedia> {
        let members =
            sounds.iter().zip(&self.layouts).enumerate().map(|(index, (sound, layout))| AlternativeMedia {
                media_type: AlternativeMediaType::Audio,
                group_id: self.id.into(),
                uri: Some(layout.rendition.playlist()),
                name: sound.label.clone(),
                language: sound.language.clone(),
                default: index == 0,
                channels: Some(layout.channels.to_string()),
                ..AlternativeMedia::default()
            });
        autoselected(members.collect())
    }
}

/// Lets players choose by language where that is enough to tell which member of the group is meant (RFC 8216
/// section 4.3.4.1.1): the default one, else the first.
fn autoselected(mut group: Vec<AlternativeMedia>) -> Vec<AlternativeMedia> {
    for index in 0..group.len() {
        let alike = |other: &AlternativeMedia| {
            group.get(index).is_some_and(|one| (&one.language, one.forced) == (&other.language, other.forced))
        };
        let chosen = group
            .iter()
            .position(|other| alike(other) && other.default)
            .or_else(|| group.iter().position(alike));
        if let Some(member) = group.get_mut(index) {
            member.autoselect = chosen == Some(index);
        }
    }
    group
}

fn subtitles_group(texts: &[Text]) -> Vec<AlternativeMedia> {
    let default = texts.iter().position(|text| text.default);
    let members = texts.iter().enumerate().map(|(index, text)| AlternativeMedia {
        media_type: AlternativeMediaType::Subtitles,
        group_id: SUBTITLES_GROUP.into(),
        uri: Some(text.rendition.playlist()),
        name: text.label.clone(),
        language: text.language.clone(),
        default: Some(index) == default,
        forced: text.forced,
        ..AlternativeMedia::default()
    });
    autoselected(members.collect())
}

/// The master playlist. Without rungs, the sound is the stream.
pub fn master(presentation: &Presentation) -> Vec<u8> {
    let sounds = presentation.sorted_sounds();
    let groups = Group::all(&sounds);
    let text_rates = Rates::of_the_busiest(presentation.texts.iter().map(|text| &text.rendition));
    let subtitles = (!presentation.texts.is_empty()).then(|| SUBTITLES_GROUP.to_owned());
    let mut alternatives: Vec<AlternativeMedia> =
        groups.iter().flat_map(|group| group.members(&sounds)).collect();
    let mut variants = Vec::new();
    let rungs = in_playlist_order(presentation);
    for of_one_codec in rungs.chunk_by(|one, next| one.family() == next.family()) {
        if groups.is_empty() {
            variants.extend(
                of_one_codec.iter().map(|rung| VariantStream {
                    subtitles: subtitles.clone(),
                    ..rung.stream(&[], text_rates)
                }),
            );
        }
        for group in &groups {
            variants.extend(of_one_codec.iter().map(|rung| VariantStream {
                audio: Some(group.id.into()),
                subtitles: subtitles.clone(),
                ..rung.stream(&group.codecs, group.rates.plus(text_rates))
            }));
        }
    }
    variants.extend(rungs.iter().filter_map(|rung| rung.i_frame_stream()));
    if rungs.is_empty() {
        for group in &groups {
            variants.extend(group.layouts.first().map(|layout| VariantStream {
                audio: Some(group.id.into()),
                subtitles: subtitles.clone(),
                ..stream(layout.rendition.playlist(), &group.codecs, group.rates.plus(text_rates))
            }));
        }
        // One rendition is no choice.
        if let ([variant], [_]) = (variants.as_mut_slice(), alternatives.as_slice()) {
            variant.audio = None;
            alternatives.clear();
        }
    }
    alternatives.extend(subtitles_group(&presentation.texts));
    let playlist = MasterPlaylist {
        version: Some(VERSION),
        independent_segments: true,
        variants,
        alternatives,
        ..MasterPlaylist::default()
    };
    text(|buffer| playlist.write_to(buffer))
}

/// Sorted, but for the variant to begin with.
fn in_playlist_order(presentation: &Presentation) -> Vec<&Variant> {
    let mut rungs = presentation.sorted_rungs();
    let most_played = rungs.first().map(|rung| rung.family());
    let first = rungs
        .iter()
        .enumerate()
        .filter(|(_, rung)| Some(rung.family()) == most_played)
        .min_by_key(|(_, rung)| rung.rendition.rates.average.abs_diff(FIRST_VARIANT_BITS))
        .map_or(0, |(index, _)| index);
    if let Some(up_to_first) = rungs.get_mut(..=first) {
        up_to_first.rotate_right(1);
    }
    rungs
}

fn stream(uri: String, codecs: &[&str], rates: Rates) -> VariantStream {
    VariantStream {
        uri,
        bandwidth: rates.peak,
        average_bandwidth: Some(rates.average),
        codecs: Some(codecs.join(",")),
        ..VariantStream::default()
    }
}

impl Rendition {
    fn playlist(&self) -> String {
        format!("{}/{MEDIA_NAME}", self.folder)
    }
}

impl Variant {
    /// With what plays beside the picture.
    fn stream(&self, other_codecs: &[&str], other_rates: Rates) -> VariantStream {
        let codecs: Vec<&str> =
            [self.rendition.codecs.as_str()].into_iter().chain(other_codecs.iter().copied()).collect();
        VariantStream {
            frame_rate: (self.frame_rate > 0.0).then_some((self.frame_rate * 1000.0).round() / 1000.0),
            closed_captions: Some(ClosedCaptionGroupId::None),
            ..self.picture(self.rendition.playlist(), &codecs, self.rendition.rates.plus(other_rates))
        }
    }

    fn i_frame_stream(&self) -> Option<VariantStream> {
        let uri = format!("{}/{I_FRAMES_NAME}", self.rendition.folder);
        Some(VariantStream {
            is_i_frame: true,
            ..self.picture(uri, &[&self.rendition.codecs], self.key_rates?)
        })
    }

    fn picture(&self, uri: String, codecs: &[&str], rates: Rates) -> VariantStream {
        let range = ("VIDEO-RANGE".to_owned(), QuotedOrUnquoted::Unquoted("SDR".into()));
        VariantStream {
            resolution: Some(Resolution { width: self.width.into(), height: self.height.into() }),
            other_attributes: Some(HashMap::from([range])),
            ..stream(uri, codecs, rates)
        }
    }
}

fn write(playlist: MediaPlaylist) -> Vec<u8> {
    text(|buffer| playlist.write_to(buffer))
}

/// What is written into memory.
pub fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut buffer = Vec::new();
    // Writing to memory does not fail.
    let _ = write(&mut buffer);
    buffer
}

/// Presentations for tests.
#[cfg(test)]
pub mod samples {
    use proptest::prelude::*;

    use super::*;

    /// Segments of these lengths in ticks, one behind the other; bytes grow with the length.
    pub fn timeline(timescale: u32, start_ticks: u64, lengths: &[u64]) -> Timeline {
        let mut next = start_ticks;
        let segments = lengths.iter().map(|&duration_ticks| {
            let start_ticks = next;
            next += duration_ticks;
            let bytes = duration_ticks * 10;
            Published { start_ticks, duration_ticks, samples: 96, bytes, key_bytes: bytes / 10 }
        });
        Timeline { timescale, segments: segments.collect() }
    }

    /// A rendition with that average; a quarter more at its peak.
    pub fn rendition(folder: &str, codecs: &str, average: u64, timeline: Timeline) -> Rendition {
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
            key_rates: Some(Rates { peak: average / 5, average: average / 8 }),
        }
    }

    fn layout(name: &str, channels: u32, lengths: &[u64]) -> Layout {
        let kbps = if channels > 2 { 384_000 } else { 128_000 };
        let audio = timeline(48_000, 0, lengths);
        Layout {
            rendition: rendition(&format!("audio/{name}"), "mp4a.40.2", kbps, audio),
            channels,
            sample_rate: 48_000,
        }
    }

    /// Three codecs, two languages, one of them in surround as well, subtitles.
    pub fn everything() -> Presentation {
        let whole = [192_512, 192_512, 191_488, 72_704];
        let sound = |label: &str, language: &str, stereo, surround| Sound {
            label: label.into(),
            language: Some(language.into()),
            default: false,
            stereo,
            surround,
        };
        let text = |name: &str, label: &str, forced| Text {
            rendition: rendition(
                &format!("subtitles/{name}"),
                "",
                400,
                timeline(1000, 0, &[4000, 4000, 4000, 1502]),
            ),
            label: label.into(),
            language: Some("de".into()),
            default: forced,
            forced,
        };
        Presentation {
            rungs: vec![
                rung("720p-av1", "av01.0.05M.08", (1280, 720), 1_200_000),
                rung("480p", "avc1.64001f", (854, 480), 900_000),
                rung("1080p", "avc1.640028", (1920, 1080), 4_000_000),
                rung("720p", "avc1.64001f", (1280, 720), 1_900_000),
                rung("1080p-hevc", "hvc1.1.6.L120.90", (1920, 1080), 2_400_000),
            ],
            sounds: vec![
                sound("English", "en", layout("eng", 2, &whole), Some(layout("eng-surround", 6, &whole))),
                // Ends early.
                sound("German", "de", layout("deu", 1, &[192_512, 100_352]), None),
            ],
            texts: vec![text("deu", "German", false), text("deu-2", "German 2", true)],
        }
    }

    prop_compose! {
        fn any_timeline()(
            timescale in prop::sample::select(vec![1000_u32, 12_800, 30_000, 44_100, 48_000, 90_000]),
            late in 0_u64..3,
            // Few different lengths, so that some follow on each other; gaps.
            lengths in prop::collection::vec((prop::sample::select(vec![1_u64, 300, 400, 401]), 0_u64..20), 1..20),
        ) -> Timeline {
            let hundredth = u64::from(timescale) / 100;
            let mut next = late * hundredth;
            let segments = lengths.into_iter().map(|(hundredths, gap)| {
                let start_ticks = next + if gap == 0 { hundredth } else { 0 };
                let duration_ticks = hundredths * hundredth;
                next = start_ticks + duration_ticks;
                let bytes = 1000 + gap * 10_000;
                Published { start_ticks, duration_ticks, samples: 1, bytes, key_bytes: 500 }
            });
            Timeline { timescale, segments: segments.collect() }
        }
    }

    prop_compose! {
        /// Whatever a plan can hold, with measured rates.
        pub fn any_presentation()(
            rungs in prop::collection::vec(
                (any_timeline(), prop::sample::select(vec!["avc1.64001f", "hvc1.1.6.L93.90", "av01.0.05M.08"])),
                0..6,
            ),
            sounds in prop::collection::vec(
                (any_timeline(), prop::option::of("de|en"), any::<bool>(), prop::option::of(any_timeline())),
                0..4,
            ),
            texts in prop::collection::vec(
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
                }).collect(),
                sounds: sounds.into_iter().enumerate().map(|(number, (timeline, language, default, surround))| {
                    let layout = |kind, channels, timeline| Layout {
                        rendition: of(kind, number, "mp4a.40.2", timeline),
                        channels,
                        sample_rate: 48_000,
                    };
                    Sound {
                        label: label(number),
                        language,
                        default,
                        stereo: layout("audio", 2, timeline),
                        surround: surround.map(|timeline| layout("surround", 6, timeline)),
                    }
                }).collect(),
                texts: texts.into_iter().enumerate().map(|(number, (timeline, language, default, forced))| Text {
                    rendition: of("subtitles", number, "", timeline),
                    label: label(number),
                    language,
                    default,
                    forced,
                }).collect(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{
        samples::{any_presentation, everything, timeline},
        *,
    };

    fn string(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn read_master(presentation: &Presentation) -> MasterPlaylist {
        m3u8_rs::parse_master_playlist_res(&master(presentation)).unwrap()
    }

    #[test]
    fn media_playlists() {
        let segments = timeline(30_000, 0, &[120_120, 120_000, 102_000]);
        let grown = Timeline { segments: segments.segments[..2].to_vec(), ..segments };
        insta::assert_snapshot!("growing", string(media(&grown, 4, false)));
        insta::assert_snapshot!("final", string(media(&segments, 4, true)));
        insta::assert_snapshot!("i_frames", string(i_frames(&segments, 4)));
        insta::assert_snapshot!("subtitles", string(subtitles(&segments, 4)));
    }

    #[test]
    fn the_target_duration_is_the_plans_unless_a_segment_is_longer() {
        let of = |planned, lengths: &[u64]| {
            target_duration(planned, [timeline(1000, 0, &[1]), timeline(1000, 0, lengths)].iter())
        };
        assert_eq!(of(4.0, &[]), 4);
        assert_eq!(of(4.0, &[4004, 4499, 100]), 4);
        assert_eq!(of(4.2, &[3000]), 5);
        assert_eq!(of(4.0, &[4000, 9600]), 10);
        assert_eq!(of(0.2, &[200]), 1);
    }

    #[test]
    fn rates_are_measured_over_about_a_segment() {
        let mut segments = timeline(1000, 0, &[4000, 4000, 100]);
        for (segment, bytes) in segments.segments.iter_mut().zip([500_000, 1_000_000, 90_000]) {
            segment.bytes = bytes;
        }
        // The last tenth of a second alone would be 7.2 Mbit/s.
        let peak = (1_090_000.0_f64 * 8.0 / 4.1).ceil() as u64;
        assert_eq!(segments.rates(4), Rates { peak, average: 1_570_371 });
        assert_eq!(segments.key_rates(4), Rates { peak: 8000, average: 8000 });
        // One frame is all there is.
        let single = timeline(1000, 0, &[40]);
        assert_eq!(single.rates(4), Rates { peak: 80_000, average: 80_000 });
        assert_eq!(Timeline::default().rates(4), Rates::default());
    }

    #[test]
    fn durations_add_up_over_the_longest_video() {
        // 3.7531 s in 44.1 kHz: each duration is rounded.
        let long = timeline(44_100, 0, &vec![165_512; 23_021]);
        let text = string(media(&long, 4, true));
        let told: f64 = text
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(','))
            .map(|seconds| seconds.parse::<f64>().unwrap())
            .sum();
        assert!(long.end_seconds() > 86_399.0);
        assert!((told - long.end_seconds()).abs() < 1.0 / 60.0, "{told} {}", long.end_seconds());
    }

    #[test]
    fn master_playlists() {
        let all = everything();
        insta::assert_snapshot!("master", string(master(&all)));
        let silent = Presentation { rungs: all.rungs[2..4].to_vec(), ..Presentation::default() };
        insta::assert_snapshot!("silent", string(master(&silent)));
        let one = Presentation { sounds: all.sounds[1..].to_vec(), ..Presentation::default() };
        insta::assert_snapshot!("audio_alone", string(master(&one)));
        let several = Presentation { sounds: all.sounds, ..Presentation::default() };
        insta::assert_snapshot!("audio_alone_in_several_languages", string(master(&several)));
    }

    #[test]
    fn the_first_variant_is_h264_of_about_two_megabits() {
        let order = |presentation: &Presentation| -> Vec<String> {
            let streams = read_master(presentation).variants;
            streams.into_iter().filter(|stream| !stream.is_i_frame).map(|stream| stream.uri).collect()
        };
        let mut presentation = Presentation { rungs: everything().rungs, ..Presentation::default() };
        let names = ["720p", "1080p", "480p", "1080p-hevc", "720p-av1"];
        let expected: Vec<String> =
            names.iter().map(|name| format!("0123/video/{name}/index.m3u8")).collect();
        assert_eq!(order(&presentation), expected);
        presentation.rungs.retain(|rung| rung.family() == Family::Av1);
        assert_eq!(order(&presentation), expected[4..]);
    }

    #[test]
    fn the_default_sound_comes_first() {
        let mut presentation = everything();
        presentation.sounds[1].default = true;
        let members = read_master(&presentation).alternatives;
        let names: Vec<_> = members.iter().map(|member| (member.name.as_str(), member.default)).collect();
        assert_eq!(names[..4], [("German", true), ("English", false), ("German", true), ("English", false)]);
    }

    #[test]
    fn a_growing_stream_has_no_i_frame_playlists_yet() {
        let mut presentation = everything();
        for rung in &mut presentation.rungs {
            rung.key_rates = None;
        }
        assert!(read_master(&presentation).variants.iter().all(|stream| !stream.is_i_frame));
    }

    proptest! {
        #[test]
        fn media_playlists_say_what_was_published(presentation in any_presentation()) {
            let timelines: Vec<&Timeline> =
                presentation.rungs.iter().map(|rung| &rung.rendition.timeline).collect();
            let target = target_duration(4.0, timelines.iter().copied());
            for timeline in timelines {
                let whole = m3u8_rs::parse_media_playlist_res(&media(timeline, target, true)).unwrap();
                let keys = m3u8_rs::parse_media_playlist_res(&i_frames(timeline, target)).unwrap();
                for playlist in [&whole, &keys] {
                    prop_assert!(playlist.end_list);
                    prop_assert_eq!(playlist.target_duration, target);
                    prop_assert_eq!(playlist.segments.len(), timeline.segments.len());
                    prop_assert_eq!(&playlist.segments[0].map.as_ref().unwrap().uri, INIT_NAME);
                    for (number, segment) in playlist.segments.iter().enumerate() {
                        prop_assert_eq!(&segment.uri, &segment_name(number));
                        prop_assert!(segment.duration.round() as u64 <= target);
                    }
                }
                for (segment, published) in keys.segments.iter().zip(&timeline.segments) {
                    let range = segment.byte_range.as_ref().unwrap();
                    prop_assert_eq!((range.length, range.offset), (published.key_bytes, Some(0)));
                }
            }
        }

        #[test]
        fn master_playlists_keep_the_rules(presentation in any_presentation()) {
            let playlist = read_master(&presentation);
            let folders: BTreeSet<&str> = presentation
                .rungs
                .iter()
                .map(|rung| &rung.rendition)
                .chain(presentation.sounds.iter().map(|sound| &sound.stereo.rendition))
                .chain(presentation.sounds.iter().filter_map(|sound| Some(&sound.surround.as_ref()?.rendition)))
                .chain(presentation.texts.iter().map(|text| &text.rendition))
                .map(|rendition| rendition.folder.as_str())
                .collect();
            let exists = |uri: &str, name: &str| {
                uri.strip_suffix(name).and_then(|uri| uri.strip_suffix('/')).is_some_and(|it| folders.contains(it))
            };

            let mut groups: BTreeMap<(String, &str), Vec<&AlternativeMedia>> = BTreeMap::new();
            for member in &playlist.alternatives {
                prop_assert!(exists(member.uri.as_ref().unwrap(), MEDIA_NAME));
                prop_assert!(member.autoselect || !member.default);
                let key = (member.media_type.to_string(), member.group_id.as_str());
                groups.entry(key).or_default().push(member);
            }
            for ((kind, _), members) in &groups {
                let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
                prop_assert_eq!(names.len(), members.len());
                let expected =
                    if kind == "AUDIO" { presentation.sounds.len() } else { presentation.texts.len() };
                prop_assert_eq!(members.len(), expected);
                let defaults = members.iter().filter(|member| member.default).count();
                prop_assert!(defaults == 1 || (defaults == 0 && kind == "SUBTITLES"));
                let chosen: Vec<_> = members.iter().filter(|member| member.autoselect).collect();
                let distinct: BTreeSet<_> =
                    chosen.iter().map(|member| (&member.language, member.forced)).collect();
                prop_assert_eq!(distinct.len(), chosen.len());
            }

            for stream in &playlist.variants {
                let name = if stream.is_i_frame { I_FRAMES_NAME } else { MEDIA_NAME };
                prop_assert!(exists(&stream.uri, name), "{}", stream.uri);
                prop_assert!(stream.bandwidth >= stream.average_bandwidth.unwrap());
                if let Some(audio) = &stream.audio {
                    prop_assert!(groups.contains_key(&("AUDIO".to_owned(), audio.as_str())));
                    prop_assert!(stream.codecs.as_ref().unwrap().contains("mp4a"));
                }
                prop_assert!(stream.is_i_frame || stream.subtitles.is_some() != presentation.texts.is_empty());
            }
            let audio_groups = groups.keys().filter(|(kind, _)| kind == "AUDIO").count().max(1);
            let (keys, streams): (Vec<_>, Vec<_>) =
                playlist.variants.iter().partition(|stream| stream.is_i_frame);
            prop_assert_eq!(keys.len(), presentation.rungs.len());
            if !presentation.rungs.is_empty() {
                prop_assert_eq!(streams.len(), presentation.rungs.len() * audio_groups);
                let h264 = |codecs: &str| codecs.starts_with("avc1");
                let any = presentation.rungs.iter().any(|rung| h264(&rung.rendition.codecs));
                prop_assert_eq!(h264(streams[0].codecs.as_ref().unwrap()), any);
            }
        }
    }
}

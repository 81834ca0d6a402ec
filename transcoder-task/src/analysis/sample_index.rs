//! The sample index of an MP4 file: times and keyframes of its tracks, from the movie header, before any
//! encoding.
//!
//! If a source already fits a rung, the rung is copied, and all other rungs use its keyframes as segment
//! boundaries. So the keyframes must be known exactly, on FFmpeg's clock. A file with unusual tables is
//! encoded instead.
//!
//! Uploads may be hostile. The walk through the boxes is bounded by their size and does not recurse.
//! `mp4-atom` decodes only single boxes, because its decoder of a whole `moov` recurses as deep as the boxes
//! nest.

use std::ops::Range;

use bytes::Bytes;
use mp4_atom::{Mehd, Mvhd, Tkhd};
use vidstreamx_isobmff::{
    BoxType,
    boxes::{
        BoxHeader, boxes, decode_optional, decode_required, find, handler_type, require, sample_entries,
    },
    walk::{BoxesIn, Missing, Windows},
};

use crate::{source::loopback::Input, store::S3Error};

use super::{
    copyable_tracks::{CopyableAudio, CopyableVideo, Movie, audio, video},
    extents::{Claim, Extents, TrackKey},
    fragments::{fragment_extents, fragment_tracks},
    language_code::canonical,
    limits::MOST_INDEXED_TRACKS,
    media::Media,
    not_copyable::{NotCopyable, why},
    rejection::ENCRYPTED,
    sample_entry::is_encrypted,
    sample_table::{MOST_SAMPLES, Tables},
    speed_edits::SpeedEdits,
    table_extent::table_extent,
};

/// Bytes of the first read. They hold a small file completely, and usually every box header before `mdat` of
/// a large file.
const FIRST_READ: u64 = 64 << 10;
/// Most boxes at the top level; files have about five.
const MAX_BOXES: usize = 64;
/// Largest `moov`. It takes about 12 bytes per frame: 24 hours at 30 frames per second are 50 MB with audio.
const LARGEST_MOOV: u64 = 64 << 20;
/// Most edits of a track. FFmpeg scans a track once per edit, so a thousand edits take half a minute. Films
/// have none.
const MOST_EDITS: u32 = 100;
/// Most samples of all tracks together, so that a small file cannot claim a hundred long tracks.
const MOST_SAMPLES_OF_ALL: u32 = 4 * MOST_SAMPLES;
const VIDEO: BoxType = *b"vide";
const AUDIO: BoxType = *b"soun";
/// iTunes' tag for the number of priming samples. FFmpeg uses it if there is no edit list.
const PRIMING_TAG: &[u8] = b"iTunSMPB";

/// A file's tracks in their order in the file. FFmpeg's streams have the same order, except for cover art.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Index {
    /// All tracks with an id.
    pub(crate) tracks: Vec<IndexedTrack>,
    /// The extents of the tracks, as far as they are known.
    pub(crate) extents: Extents,
    /// The reason to reject the file, for the uploader.
    pub(crate) rejection: Option<String>,
}

/// A track of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IndexedTrack {
    /// The track id, which ffprobe prints as `0x1`.
    pub(crate) id: u32,
    /// True if the track is encrypted, so that it cannot be decoded.
    pub(crate) encrypted: bool,
    /// Its extended language tag (`elng`), which FFmpeg does not read.
    language: Option<String>,
    speed: SpeedEdits,
    /// Its kind, with its samples if it can be copied.
    pub(crate) content: Content,
}

/// The kind of a track, with its samples or the reason why it cannot be copied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Video(Result<CopyableVideo, NotCopyable>),
    Audio(Result<CopyableAudio, NotCopyable>),
    /// Subtitles, chapters, time code.
    Other,
}

impl Index {
    /// Reads the index of an MP4 or QuickTime file; `None` if it has no usable one.
    ///
    /// # Errors
    /// S3 fails. A local file that cannot be read has no index; FFmpeg will report its error.
    pub(crate) async fn read(input: &Input) -> Result<Option<Self>, S3Error> {
        let Some(size) = input.size().await else { return Ok(None) };
        let Some((moov, moov_end)) = find_moov(input, size).await? else { return Ok(None) };
        let Some(mut index) = Self::of_moov(&moov, size) else { return Ok(None) };
        let fragments = fragment_tracks(&moov);
        drop(moov);
        if !fragments.is_empty() {
            let extents = fragment_extents(input, &fragments, moov_end, size).await?;
            let keys = fragments.iter().map(|track| TrackKey::Id(track.id));
            keys.zip(extents).for_each(|(key, extent)| index.extents.add(key, extent));
        }
        for track in &mut index.tracks {
            let Content::Video(content) = &mut track.content else { continue };
            let Ok(video) = content else { continue };
            if let Err(reason) = video.check_keyframes(input).await? {
                *content = Err(reason);
            }
        }
        Ok(Some(index))
    }

    /// The reason to reject the file, for the uploader.
    #[must_use]
    pub(crate) fn rejection_reason(&self) -> Option<String> {
        if self.tracks.iter().any(|track| track.encrypted) {
            return Some(ENCRYPTED.to_owned());
        }
        self.rejection.clone()
    }

    /// Adds to the model what ffprobe does not print: extended language tags, and warnings about edits of
    /// another speed.
    pub(crate) fn describe(&self, media: &mut Media) {
        let track = |id: Option<u32>| id.and_then(|id| self.track(id));
        let language = |id, language: &mut Option<String>| {
            if let Some(tag) = track(id).and_then(|track| track.language.clone()) {
                *language = Some(tag);
            }
        };
        media.audio.iter_mut().for_each(|audio| language(audio.id, &mut audio.language));
        media.subtitles.iter_mut().for_each(|subtitle| language(subtitle.id, &mut subtitle.language));
        let video = media.video.iter().map(|video| (video.id, "the video".to_owned()));
        let audio = media.audio.iter().map(|audio| (audio.id, format!("audio track {}", audio.index)));
        let edited = video.chain(audio).filter_map(|(id, name)| Some((track(id)?.speed, name)));
        let warnings: Vec<String> = edited.flat_map(|(speed, name)| speed.warnings(&name)).collect();
        media.warnings.extend(warnings);
    }

    /// The track with this id, unless several have it.
    #[must_use]
    pub(crate) fn track(&self, id: u32) -> Option<&IndexedTrack> {
        let mut same = self.tracks.iter().filter(|track| track.id == id);
        same.next().filter(|_| same.next().is_none())
    }

    /// Parses the body of a `moov` box.
    fn of_moov(moov: &[u8], file_size: u64) -> Option<Self> {
        let mvhd: Mvhd = decode_required(moov).ok()?;
        let movie = Movie {
            timescale: mvhd.timescale,
            fragmented: boxes(moov).any(|(kind, _)| kind == *b"mvex"),
            priming_tag: boxes(moov).any(|(kind, tags)| {
                kind == *b"udta" && tags.windows(PRIMING_TAG.len()).any(|name| name == PRIMING_TAG)
            }),
            file_size,
        };
        let mut budget = MOST_SAMPLES_OF_ALL;
        let mut tracks: Vec<IndexedTrack> = Vec::new();
        for (_, trak) in boxes(moov).filter(|(kind, _)| kind == b"trak").take(MOST_INDEXED_TRACKS) {
            let Some(mut track) = track(trak, &movie, &mut budget) else { continue };
            // Only one copyable video track is kept, because the tables of a hundred would need much memory.
            if track.is_copyable_video() && tracks.iter().any(IndexedTrack::is_copyable_video) {
                track.content = Content::Video(why("another video track precedes it"));
            }
            tracks.push(track);
        }
        Some(Self { tracks, extents: extents(moov, &mvhd, file_size), rejection: rejection(moov) })
    }
}

/// The extents of the tracks by their sample tables.
fn extents(moov: &[u8], mvhd: &Mvhd, file_size: u64) -> Extents {
    let traks = boxes(moov).filter(|(kind, _)| kind == b"trak").take(MOST_INDEXED_TRACKS);
    let tracks = traks.filter_map(|(_, trak)| {
        let id = decode_optional::<Tkhd>(trak).ok()??.track_id;
        Some((TrackKey::Id(id), table_extent(trak, mvhd.timescale, file_size)?))
    });
    let mehd =
        find(moov, *b"mvex").ok().flatten().and_then(|mvex| decode_optional::<Mehd>(mvex).ok().flatten());
    let claim = |header: &str, ticks: u64| Claim {
        header: header.to_owned(),
        seconds: ticks as f64 / f64::from(mvhd.timescale.max(1)),
    };
    // All ones means an unknown duration.
    let movie = Some(mvhd.duration).filter(|ticks| !matches!(*ticks, u64::MAX | 0xffff_ffff));
    let movie = movie.map(|ticks| claim("movie header (mvhd)", ticks));
    let fragments = mehd.map(|mehd| claim("movie header (mehd)", mehd.fragment_duration));
    Extents { tracks: tracks.collect(), claims: movie.into_iter().chain(fragments).collect() }
}

/// The reason to reject a header that no real video has, and that would occupy FFmpeg for hours.
fn rejection(moov: &[u8]) -> Option<String> {
    let edits = |trak: &[u8]| {
        let elst = find(find(trak, *b"edts").ok()??, *b"elst").ok()??;
        Some(u32::from_be_bytes(elst.get(4..8)?.try_into().ok()?))
    };
    let traks = boxes(moov).filter(|(kind, _)| kind == b"trak").take(MOST_INDEXED_TRACKS);
    let most = traks.filter_map(|(_, trak)| edits(trak)).max().unwrap_or(0);
    (most > MOST_EDITS)
        .then(|| format!("an edit list of the file has {most} parts; the limit is {MOST_EDITS}"))
}

impl IndexedTrack {
    /// True if all frames have the same parameters, as far as the checks of copyable tracks go.
    pub(super) fn is_uniform(&self) -> bool {
        self.is_copyable_video()
    }

    fn is_copyable_video(&self) -> bool {
        matches!(self.content, Content::Video(Ok(_)))
    }
}

/// The body of the first `moov` box, and its end in the file.
async fn find_moov(input: &Input, size: u64) -> Result<Option<(Bytes, u64)>, S3Error> {
    let Some(head) = input.bytes(0, FIRST_READ).await? else { return Ok(None) };
    let mut windows = Windows::new();
    windows.add(0, head.clone());
    // Each read finds at least one box.
    for _ in 0..MAX_BOXES {
        match top_level_moov(&windows, size) {
            Ok(Some(body)) if body.end - body.start > LARGEST_MOOV => return Ok(None),
            Ok(Some(body)) => {
                let moov = match (usize::try_from(body.start), usize::try_from(body.end)) {
                    (Ok(start), Ok(end)) if end <= head.len() => Some(head.slice(start..end)),
                    _ => input.bytes(body.start, body.end).await?,
                };
                return Ok(moov.map(|moov| (moov, body.end)));
            }
            Err(Missing::At(offset)) => {
                let end = size.min(offset.saturating_add(BoxHeader::LONG as u64));
                let Some(header) = input.bytes(offset, end).await? else { return Ok(None) };
                windows.add(offset, header);
            }
            Ok(None) | Err(Missing::Never) => return Ok(None),
        }
    }
    Ok(None)
}

/// The body of the first `moov` box in the windows that were read; `None` if the file has none.
fn top_level_moov(windows: &Windows<Bytes>, size: u64) -> Result<Option<Range<u64>>, Missing> {
    let mut boxes = BoxesIn::new(windows, 0..size);
    for _ in 0..MAX_BOXES {
        let found = boxes.advance()?;
        if found.truncated {
            return Ok(None);
        }
        if found.kind == *b"moov" {
            return Ok(Some(found.body));
        }
    }
    Ok(None)
}

fn track(trak: &[u8], movie: &Movie, budget: &mut u32) -> Option<IndexedTrack> {
    let id = decode_optional::<Tkhd>(trak).ok()??.track_id;
    let mdia = require(trak, *b"mdia").unwrap_or_default();
    let handler = require(mdia, *b"hdlr").ok().and_then(handler_type);
    let stbl = require(mdia, *b"minf").and_then(|minf| require(minf, *b"stbl")).unwrap_or_default();
    let entries = require(stbl, *b"stsd").map(sample_entries).unwrap_or_default();
    let encrypted = boxes(entries).any(|(kind, entry)| is_encrypted(kind, entry));
    let tables = || {
        if movie.fragmented {
            return why("the file is fragmented");
        }
        let tables = Tables::new(trak, movie.timescale)?;
        *budget =
            budget.checked_sub(tables.samples).ok_or(NotCopyable("the file has too many samples".into()))?;
        Ok(tables)
    };
    let content = match handler {
        Some(VIDEO) if encrypted => Content::Video(why("it is encrypted")),
        Some(AUDIO) if encrypted => Content::Audio(why("it is encrypted")),
        Some(VIDEO) => Content::Video(video(entries, tables, movie)),
        Some(AUDIO) => Content::Audio(audio(entries, tables, movie)),
        _ => Content::Other,
    };
    let elst = find(trak, *b"edts").ok().flatten().and_then(|edts| find(edts, *b"elst").ok().flatten());
    Some(IndexedTrack {
        id,
        encrypted,
        language: find(mdia, *b"elng").ok().flatten().and_then(extended_language),
        speed: elst.map_or_else(SpeedEdits::default, |elst| SpeedEdits::parse(elst, movie.timescale)),
        content,
    })
}

/// The tag in the body of an `elng` box (ISO/IEC 14496-12, 8.4.6): text with a zero byte at its end.
fn extended_language(elng: &[u8]) -> Option<String> {
    let text = elng.get(4..)?.split(|byte| *byte == 0).next()?;
    canonical(std::str::from_utf8(text).ok()?)
}

#[cfg(test)]
mod tests;

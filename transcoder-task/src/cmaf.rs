//! Cuts FFmpeg's fragmented MP4 into an init segment and media segments as it comes.
//!
//! FFmpeg writes `ftyp moov (moof mdat)*` into a pipe; a fragment (`moof` and `mdat`) of video is everything from
//! one keyframe to the next, one of audio half a second. Fragments that begin in the same interval between
//! the plan's boundaries make one segment.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use mp4_atom::{Codec, Decode, DecodeMaybe, Header, Moof, Moov};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::plan::Boundaries;

/// No box of a segment is larger: 10 seconds at 200 Mbit/s.
const LARGEST_BOX: usize = 256 << 20;

/// Why FFmpeg's output cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CmafError {
    /// The pipe broke.
    #[error("reading it failed: {0}")]
    Read(#[from] std::io::Error),
    /// A box that cannot be decoded.
    #[error("a box is malformed: {0}")]
    Box(#[from] mp4_atom::Error),
    /// Boxes in an order that FFmpeg never writes, or without what is needed.
    #[error("{0}")]
    Unexpected(&'static str),
}

/// What comes out of a rendition, in order: one init segment, then media segments.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// `ftyp` and `moov`.
    Init(Init),
    /// One or more fragments.
    Segment(Segment),
}

/// The init segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Init {
    /// As published.
    pub bytes: Bytes,
    /// RFC 6381: `avc1.64001f`, `mp4a.40.2`.
    pub codecs: String,
}

/// A media segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// From 0.
    pub number: usize,
    /// When its first sample is decoded, in seconds.
    pub start_seconds: f64,
    /// Of all its samples, in seconds.
    pub duration_seconds: f64,
    /// How many samples (frames).
    pub samples: usize,
    /// As published.
    pub bytes: Bytes,
}

/// The pieces of a rendition, as they are ready.
pub fn pieces<R: AsyncRead + Unpin>(
    reader: R,
    boundaries: Boundaries,
) -> impl Stream<Item = Result<Piece, CmafError>> {
    let cutter =
        Cutter { reader, boundaries, track: None, open: None, ready: VecDeque::new(), next_number: 0 };
    stream::try_unfold(
        cutter,
        |mut cutter| async move { Ok(cutter.next().await?.map(|piece| (piece, cutter))) },
    )
}

struct Cutter<R> {
    reader: R,
    boundaries: Boundaries,
    track: Option<Track>,
    open: Option<Open>,
    ready: VecDeque<Segment>,
    next_number: usize,
}

/// What the init segment says about the samples.
#[derive(Clone, Copy)]
struct Track {
    ticks_per_second: f64,
    default_sample_ticks: u32,
}

/// The segment that is being put together.
struct Open {
    interval: u64,
    start_seconds: f64,
    duration_seconds: f64,
    samples: usize,
    bytes: BytesMut,
}

struct Fragment {
    start_ticks: u64,
    ticks: u64,
    samples: usize,
}

impl<R: AsyncRead + Unpin> Cutter<R> {
    async fn next(&mut self) -> Result<Option<Piece>, CmafError> {
        let mut pending = BytesMut::new();
        loop {
            if let Some(segment) = self.ready.pop_front() {
                return Ok(Some(Piece::Segment(segment)));
            }
            let Some((kind, bytes)) = read_box(&mut self.reader).await? else { break };
            match &kind {
                b"ftyp" => pending.extend_from_slice(&bytes),
                b"moov" => {
                    pending.extend_from_slice(&bytes);
                    let (track, codecs) = describe(&bytes)?;
                    self.track = Some(track);
                    return Ok(Some(Piece::Init(Init { bytes: pending.freeze(), codecs })));
                }
                b"moof" => {
                    let track =
                        self.track.ok_or(CmafError::Unexpected("a fragment before the init segment"))?;
                    let fragment = measure(&bytes, track)?;
                    let Some((kind, data)) = read_box(&mut self.reader).await? else { break };
                    if &kind != b"mdat" {
                        return Err(CmafError::Unexpected("a fragment without its samples"));
                    }
                    self.add(&fragment, track, &bytes, &data);
                }
                // mfra and the like: of no use in segments.
                _ => {}
            }
        }
        self.close();
        Ok(self.ready.pop_front().map(Piece::Segment))
    }

    /// Adds a fragment to the open segment, or to a new one if it begins behind a boundary. A fragment that
    /// reaches the next boundary closes its segment at once: waiting for the next fragment would hold every
    /// segment back by the length of another.
    fn add(&mut self, fragment: &Fragment, track: Track, moof: &[u8], mdat: &[u8]) {
        let seconds = |ticks: u64| ticks as f64 / track.ticks_per_second;
        let start_seconds = seconds(fragment.start_ticks);
        let interval = self.boundaries.interval(start_seconds);
        if self.open.as_ref().is_some_and(|open| open.interval != interval) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open {
            interval,
            start_seconds,
            duration_seconds: 0.0,
            samples: 0,
            bytes: BytesMut::new(),
        });
        open.duration_seconds += seconds(fragment.ticks);
        open.samples += fragment.samples;
        open.bytes.extend_from_slice(moof);
        open.bytes.extend_from_slice(mdat);
        if self.boundaries.interval(seconds(fragment.start_ticks + fragment.ticks)) > interval {
            self.close();
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.ready.push_back(Segment {
            number: self.next_number,
            start_seconds: open.start_seconds,
            duration_seconds: open.duration_seconds,
            samples: open.samples,
            bytes: open.bytes.freeze(),
        });
        self.next_number += 1;
    }
}

/// A whole box with its header, and its type; `None` at the end of the pipe.
async fn read_box<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<([u8; 4], Bytes)>, CmafError> {
    let mut bytes = vec![0; 8];
    if reader.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut bytes[1..]).await?;
    let mut kind = [0; 4];
    kind.copy_from_slice(&bytes[4..]);
    if bytes.starts_with(&[0, 0, 0, 1]) {
        bytes.resize(16, 0);
        reader.read_exact(&mut bytes[8..]).await?;
    }
    let header = Header::decode_maybe(&mut bytes.as_slice())?;
    let size = header
        .and_then(|header| header.size)
        .filter(|size| *size <= LARGEST_BOX)
        .ok_or(CmafError::Unexpected("a box without a sensible size"))?;
    let body = bytes.len();
    bytes.resize(body + size, 0);
    reader.read_exact(&mut bytes[body..]).await?;
    Ok(Some((kind, bytes.into())))
}

fn describe(moov: &[u8]) -> Result<(Track, String), CmafError> {
    let moov = Moov::decode(&mut &*moov)?;
    let trak = moov.trak.first().ok_or(CmafError::Unexpected("an init segment without a track"))?;
    let trex = moov.mvex.as_ref().and_then(|mvex| mvex.trex.first());
    let track = Track {
        ticks_per_second: f64::from(trak.mdia.mdhd.timescale.max(1)),
        default_sample_ticks: trex.map_or(0, |trex| trex.default_sample_duration),
    };
    let codecs = match trak.mdia.minf.stbl.stsd.codecs.first() {
        Some(Codec::Avc1(avc1)) => format!(
            "avc1.{:02x}{:02x}{:02x}",
            avc1.avcc.avc_profile_indication, avc1.avcc.profile_compatibility, avc1.avcc.avc_level_indication
        ),
        Some(Codec::Mp4a(mp4a)) => {
            let config = &mp4a.esds.es_desc.dec_config;
            let audio_object_type = config.dec_specific.as_ref().map_or(2, |specific| specific.profile);
            format!("mp4a.{:02x}.{audio_object_type}", config.object_type_indication)
        }
        _ => return Err(CmafError::Unexpected("an init segment of a codec that was not asked for")),
    };
    Ok((track, codecs))
}

fn measure(moof: &[u8], track: Track) -> Result<Fragment, CmafError> {
    let moof = Moof::decode(&mut &*moof)?;
    let [traf] = moof.traf.as_slice() else {
        return Err(CmafError::Unexpected("a fragment of other than one track"));
    };
    let start_ticks = traf.tfdt.as_ref().ok_or(CmafError::Unexpected("a fragment without a time"))?;
    let default = traf.tfhd.default_sample_duration.unwrap_or(track.default_sample_ticks);
    let mut fragment = Fragment { start_ticks: start_ticks.base_media_decode_time, ticks: 0, samples: 0 };
    for sample in traf.trun.iter().flat_map(|trun| trun.samples.iter()) {
        fragment.ticks += u64::from(sample.duration.unwrap_or(default));
        fragment.samples += 1;
    }
    Ok(fragment)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const BOUNDARIES: Boundaries = Boundaries { segment_seconds: 1.0, tolerance_seconds: 0.02 };

    async fn cut(arguments: &str) -> Vec<Piece> {
        let output = crate::ffmpeg::command("ffmpeg")
            .args(["-loglevel", "error"])
            .args(arguments.split_whitespace())
            .args(["-f", "mp4", "pipe:1"])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        pieces(output.stdout.as_slice(), BOUNDARIES).try_collect().await.unwrap()
    }

    fn split(pieces: Vec<Piece>) -> (Init, Vec<Segment>) {
        let mut pieces = pieces.into_iter();
        let Some(Piece::Init(init)) = pieces.next() else { panic!("no init segment") };
        let segments = pieces.map(|piece| match piece {
            Piece::Segment(segment) => segment,
            Piece::Init(_) => panic!("a second init segment"),
        });
        (init, segments.collect())
    }

    #[tokio::test]
    async fn video_is_cut_at_keyframes_and_loses_nothing() {
        let (init, segments) = split(
            cut("-f lavfi -i testsrc2=size=64x64:rate=25:duration=2.6 -c:v libx264 -g 25 -sc_threshold 0 \
                 -movflags +frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets")
            .await,
        );
        assert!(init.codecs.starts_with("avc1.64"), "{}", init.codecs);
        let timeline: Vec<_> = segments.iter().map(|s| (s.number, s.start_seconds, s.samples)).collect();
        assert_eq!(timeline, [(0, 0.0, 25), (1, 1.0, 25), (2, 2.0, 15)]);
        assert_eq!(segments.iter().map(|s| (s.duration_seconds * 25.0).round() as u32).sum::<u32>(), 65);
    }

    #[tokio::test]
    async fn audio_fragments_are_grouped_by_the_boundaries() {
        let (init, segments) = split(
            cut("-f lavfi -i sine=sample_rate=48000:duration=3 -c:a aac -frag_duration 250000 \
                 -movflags +empty_moov+default_base_moof")
            .await,
        );
        assert_eq!(init.codecs, "mp4a.40.2");
        assert!((3..=4).contains(&segments.len()), "{}", segments.len());
        let mut expected_start = segments[0].start_seconds;
        for segment in &segments {
            assert!((segment.start_seconds - expected_start).abs() < 1e-6);
            expected_start += segment.duration_seconds;
        }
    }

    #[tokio::test]
    async fn a_segment_is_there_as_soon_as_its_last_fragment_is() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let output = crate::ffmpeg::command("ffmpeg")
            .args(
                "-loglevel error -f lavfi -i testsrc2=size=64x64:rate=25:duration=2 -c:v libx264 -g 25"
                    .split(' '),
            )
            .args("-sc_threshold 0 -movflags +frag_keyframe+empty_moov+default_base_moof".split(' '))
            .args(["-f", "mp4", "pipe:1"])
            .output()
            .await
            .unwrap();
        let second_moof =
            output.stdout.windows(4).enumerate().filter(|(_, four)| four == b"moof").nth(1).unwrap().0;
        writer.write_all(&output.stdout[..second_moof - 4]).await.unwrap();
        // The pipe stays open, and nothing of the second segment is in it.
        let mut pieces = std::pin::pin!(pieces(reader, BOUNDARIES));
        assert!(matches!(pieces.try_next().await, Ok(Some(Piece::Init(_)))));
        let Ok(Some(Piece::Segment(segment))) = pieces.try_next().await else { panic!("no segment") };
        assert_eq!((segment.number, segment.samples), (0, 25));
    }

    #[tokio::test]
    async fn rubbish_and_broken_pipes_are_errors() {
        for rubbish in [&b"rubbish rubbish rubbish"[..], &[0, 0, 0, 9], &[0, 0, 0, 0, b'm', b'o', b'o', b'f']]
        {
            let result: Result<Vec<_>, _> = pieces(rubbish, BOUNDARIES).try_collect().await;
            assert!(result.is_err());
        }
    }
}

//! Init segments: codec string, clock and sample defaults of a rendition.

use bytes::Bytes;
use mp4_atom::{Avc1, Avcc, Codec, Decode, Encode, Moov};
use vidstreamx_isobmff::{
    boxes::{BoxError, BoxHeader, all_boxes, offset_of},
    codecs::codec_string,
    fragment::{FragmentError, SampleDefaults},
};

/// FFmpeg's output cannot be segmented.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CmafError {
    #[error("the pipe cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// A box cannot be decoded or encoded.
    #[error("a box is malformed: {0}")]
    Box(#[from] mp4_atom::Error),
    /// Boxes are missing.
    #[error("{0}")]
    Structure(#[from] BoxError),
    /// A fragment has no single track with a time.
    #[error("{0}")]
    Fragment(#[from] FragmentError),
    /// A box that FFmpeg never writes, or never in this place.
    #[error("{0}")]
    Unexpected(&'static str),
    /// A copied track changes after its first frames.
    #[error("the track {0}")]
    Departure(&'static str),
    /// An encoded prefix and the copied rest do not fit together.
    #[error("the encoded prefix and the copied rest do not fit together: {0}")]
    Splice(&'static str),
}

/// The init segment of a rendition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Init {
    /// `ftyp` and `moov`, as published.
    pub(crate) bytes: Bytes,
    /// RFC 6381 codec string.
    pub(crate) codecs: String,
    /// Ticks per second of the segments' times.
    pub(crate) timescale: u32,
}

/// Properties of a rendition's samples, as its init segment states them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrackHeader {
    pub(super) timescale: u32,
    pub(super) is_audio: bool,
    pub(super) defaults: SampleDefaults,
}

impl TrackHeader {
    pub(super) fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.timescale)
    }

    /// The nearest tick.
    pub(super) fn ticks(&self, seconds: f64) -> u64 {
        (seconds * f64::from(self.timescale)).round().max(0.0) as u64
    }
}

/// The error of an init segment without a track.
const NO_TRACK: CmafError = CmafError::Unexpected("an init segment without a track");

impl Init {
    /// Parses an init segment. Also returns the properties of the rendition's samples.
    ///
    /// # Errors
    /// It is incomplete or malformed, or has a codec that no rendition uses.
    pub(super) fn with_track(bytes: Bytes) -> Result<(Self, TrackHeader), CmafError> {
        let bytes = upright(bytes);
        let moov = decode_moov(&bytes)?.1;
        let trak = moov.trak.first().ok_or(NO_TRACK)?;
        let track = TrackHeader {
            timescale: trak.mdia.mdhd.timescale.max(1),
            is_audio: <[u8; 4]>::from(trak.mdia.hdlr.handler) == *b"soun",
            defaults: SampleDefaults::of_init(&moov),
        };
        let codecs = trak.mdia.minf.stbl.stsd.codecs.first().and_then(codec_string);
        let codecs = codecs.ok_or(CmafError::Unexpected("an init segment of an unexpected codec"))?;
        Ok((Self { bytes, codecs, timescale: track.timescale }, track))
    }

    /// Parses a published init segment.
    ///
    /// # Errors
    /// As for [`Init::with_track`].
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, CmafError> {
        Ok(Self::with_track(bytes)?.0)
    }

    /// H.264's configuration, if the rendition has that codec.
    pub(super) fn avcc(&self) -> Option<Avcc> {
        let (_, mut moov) = decode_moov(&self.bytes).ok()?;
        Some(avc1(&mut moov).ok()?.avcc.clone())
    }

    /// This init segment of an H.264 rendition, with no higher level than this one in its parameter sets and
    /// its codec string. Decoders of the samples need nothing else.
    ///
    /// # Errors
    /// [`CmafError::Splice`] if it is not H.264.
    pub(crate) fn with_level(&self, level: u8) -> Result<Self, CmafError> {
        /// Byte of `level_idc` in a sequence parameter set, after NAL unit header, profile and constraints.
        const LEVEL_BYTE: usize = 3;
        let (front, mut moov) = decode_moov(&self.bytes)?;
        let avcc = &mut avc1(&mut moov)?.avcc;
        let levels = avcc.sequence_parameter_sets.iter_mut().filter_map(|set| set.get_mut(LEVEL_BYTE));
        let lowered = levels.map(|stated| {
            *stated = level.min(*stated);
            *stated
        });
        avcc.avc_level_indication = lowered.max().unwrap_or(level);
        let mut bytes = front.to_vec();
        moov.encode(&mut bytes)?;
        Self::parse(bytes.into())
    }

    /// This init segment with the parameter sets of `other` added, for an H.264 rendition that has segments
    /// of both.
    ///
    /// # Errors
    /// [`CmafError::Splice`] if they do not fit together.
    pub(crate) fn with_parameter_sets_of(&self, other: &Self) -> Result<Self, CmafError> {
        if self.timescale != other.timescale {
            return Err(CmafError::Splice("their clocks differ"));
        }
        let (front, mut moov) = decode_moov(&self.bytes)?;
        let (_, mut theirs) = decode_moov(&other.bytes)?;
        let (ours, theirs) = (avc1(&mut moov)?, avc1(&mut theirs)?.clone());
        if (ours.visual.width, ours.visual.height) != (theirs.visual.width, theirs.visual.height) {
            return Err(CmafError::Splice("their sizes differ"));
        }
        let (ours, theirs) = (&mut ours.avcc, theirs.avcc);
        // A decoder for the higher one of Baseline, Main and High also decodes the lower ones.
        ours.avc_profile_indication = ours.avc_profile_indication.max(theirs.avc_profile_indication);
        ours.profile_compatibility &= theirs.profile_compatibility;
        ours.avc_level_indication = ours.avc_level_indication.max(theirs.avc_level_indication);
        ours.ext = ours.ext.take().or(theirs.ext);
        add_new(&mut ours.sequence_parameter_sets, theirs.sequence_parameter_sets);
        add_new(&mut ours.picture_parameter_sets, theirs.picture_parameter_sets);
        let mut bytes = front.to_vec();
        moov.encode(&mut bytes)?;
        Self::parse(bytes.into())
    }
}

/// The init segment with the identity as the display matrix of its track. FFmpeg copies the source's matrix
/// to its output even if a filter has already turned the frames.
fn upright(bytes: Bytes) -> Bytes {
    const IDENTITY: [u32; 9] = [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30];
    let Some(at) = matrix_offset(&bytes) else { return bytes };
    let identity = IDENTITY.map(u32::to_be_bytes).concat();
    match bytes.get(at..at + identity.len()) {
        Some(matrix) if *matrix != identity => {
            let mut upright = bytes.to_vec();
            upright.splice(at..at + identity.len(), identity);
            upright.into()
        }
        _ => bytes,
    }
}

/// The offset of the display matrix in the first track's `tkhd` box.
fn matrix_offset(bytes: &[u8]) -> Option<usize> {
    let mut body = 0;
    for kind in [*b"moov", *b"trak", *b"tkhd"] {
        body += offset_of(bytes.get(body..)?, kind)? + BoxHeader::SHORT;
    }
    // Version 1 has 64-bit times and duration (ISO/IEC 14496-12, 8.3.2).
    Some(body + if *bytes.get(body)? == 1 { 52 } else { 40 })
}

/// The bytes before the `moov` box, and the decoded box.
fn decode_moov(bytes: &[u8]) -> Result<(&[u8], Moov), CmafError> {
    // This check finds an incomplete box at the end, which the code below would not notice.
    all_boxes(bytes)?;
    let (front, mut moov) = bytes.split_at(offset_of(bytes, *b"moov").ok_or(NO_TRACK)?);
    Ok((front, Moov::decode(&mut moov)?))
}

fn avc1(moov: &mut Moov) -> Result<&mut Avc1, CmafError> {
    let trak = moov.trak.first_mut().ok_or(NO_TRACK)?;
    match trak.mdia.minf.stbl.stsd.codecs.first_mut() {
        Some(Codec::Avc1(avc1)) => Ok(avc1),
        _ => Err(CmafError::Splice("one of them is not H.264")),
    }
}

fn add_new(sets: &mut Vec<Vec<u8>>, others: Vec<Vec<u8>>) {
    for other in others {
        if !sets.contains(&other) {
            sets.push(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{clip, ffmpeg};

    #[test]
    fn the_display_matrix_of_the_source_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let source = clip(&folder, "source.mp4", "-f lavfi -i testsrc2=size=64x48:rate=5:duration=1");
        let mut file = std::fs::read(&source).unwrap();
        let at = matrix_offset(&file).unwrap();
        // Upside down.
        file[at + 16..at + 20].copy_from_slice(&(-65_536_i32).to_be_bytes());
        std::fs::write(&source, file).unwrap();
        let output = "-filter_complex [0:v]scale=64:48[v] -map [v] -movflags +empty_moov -f mp4 pipe:1";
        let bytes = Bytes::from(ffmpeg(&format!("-noautorotate -i {} {output}", source.display())));
        let moov = offset_of(&bytes, *b"moof").unwrap();
        let (init, _) = Init::with_track(bytes.slice(..moov)).unwrap();
        let matrix = |bytes: &[u8]| bytes[matrix_offset(bytes).unwrap()..][..36].to_vec();
        assert_ne!(matrix(&bytes), matrix(&init.bytes), "FFmpeg removes the matrix by itself");
        assert_eq!(init.bytes.len(), moov);
        assert_eq!(matrix(&init.bytes)[16..20], 65_536_i32.to_be_bytes());
    }

    #[test]
    fn a_lower_level_is_stated_everywhere() {
        let clip = ffmpeg(
            "-f lavfi -i testsrc2=size=640x360:rate=30:duration=0.2 -pix_fmt yuv420p -c:v libx264 -level 6.2 \
             -movflags empty_moov+default_base_moof+frag_keyframe -f mp4 pipe:1",
        );
        let end = offset_of(&clip, *b"moof").unwrap();
        let init = Init::parse(Bytes::copy_from_slice(&clip[..end])).unwrap();
        assert_eq!(init.codecs, "avc1.64003e");
        let lower = init.with_level(30).unwrap();
        assert_eq!(lower.codecs, "avc1.64001e");
        let stated = |init: &Init| {
            let mut moov = decode_moov(&init.bytes).unwrap().1;
            let avcc = avc1(&mut moov).unwrap().avcc.clone();
            (avcc.avc_level_indication, avcc.sequence_parameter_sets[0][3])
        };
        assert_eq!((stated(&init), stated(&lower)), ((62, 62), (30, 30)));
        assert_eq!(stated(&lower.with_level(41).unwrap()), (30, 30), "never a higher level");
        // The samples do not change, and decoders find them.
        let stream = [&lower.bytes[..], &clip[end..]].concat();
        let decode = ["-v", "error", "-f", "mp4", "-i", "pipe:0", "-f", "rawvideo", "pipe:1"];
        let frames = crate::fixtures::run("ffmpeg", &decode, &stream).stdout;
        assert_eq!(frames, crate::fixtures::run("ffmpeg", &decode, &clip).stdout);
        assert_eq!(frames.len(), 6 * 640 * 360 * 3 / 2);
    }
}

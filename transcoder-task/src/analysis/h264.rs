//! H.264: parameter sets and slices.

use mp4_atom::{Atom, Avcc};

use super::{
    h264_set::{SequenceSet, unescaped},
    not_copyable::{NotCopyable, why},
};

/// The id of the parameter sets of an encoded prefix. It must differ from all ids of the source. Encoders
/// count from 0, so this is the highest possible id of a sequence parameter set.
pub(crate) const PREFIX_PARAMETER_SETS: u32 = 31;

/// Checks that the video is progressive 4:2:0 with 8 bits. The profiles Baseline, Main and High always have
/// both, except for rare grey video.
///
/// # Errors
/// The video has another profile, bit depth or chroma format, no parameter sets, or may be interlaced.
pub(super) fn check_avcc(avcc: &Avcc) -> Result<(), NotCopyable> {
    if !matches!(avcc.avc_profile_indication, 66 | 77 | 100) {
        return why(format!("its H.264 profile is {}", avcc.avc_profile_indication));
    }
    if avcc.sequence_parameter_sets.is_empty() || avcc.picture_parameter_sets.is_empty() {
        return why("its parameter sets are missing");
    }
    if !avcc.sequence_parameter_sets.iter().all(|set| is_progressive(set) == Some(true)) {
        return why("its frames may consist of two fields");
    }
    match &avcc.ext {
        Some(ext) if (ext.chroma_format, ext.bit_depth_luma, ext.bit_depth_chroma) != (1, 8, 8) => {
            why("it is not 4:2:0 in 8 bits")
        }
        _ => Ok(()),
    }
}

/// Returns true if an encoded prefix can share the source's init segment: the source has FFmpeg's NAL length
/// size, room for two more parameter sets, and no parameter set with the prefix's id.
#[must_use]
pub(super) fn accepts_encoded_prefix(avcc: &Avcc) -> bool {
    const MAX_SEQUENCE_SETS: usize = 31;
    const MAX_PICTURE_SETS: usize = 255;
    // The id follows the NAL unit header. In a sequence parameter set, profile, constraints and level precede
    // it.
    let sequence_ids = avcc.sequence_parameter_sets.iter().map(|set| ue(set, 4));
    let picture_ids = avcc.picture_parameter_sets.iter().map(|set| ue(set, 1));
    avcc.length_size == 4
        && avcc.sequence_parameter_sets.len() < MAX_SEQUENCE_SETS
        && avcc.picture_parameter_sets.len() < MAX_PICTURE_SETS
        && sequence_ids.chain(picture_ids).all(|id| id.is_some_and(|id| id != PREFIX_PARAMETER_SETS))
}

/// Reads an unsigned Exp-Golomb code (ITU-T H.264, 9.1) of less than 16 bits at a byte boundary.
fn ue(nal: &[u8], byte: usize) -> Option<u32> {
    let code = u32::from_be_bytes([
        *nal.get(byte)?,
        *nal.get(byte + 1)?,
        nal.get(byte + 2).copied().unwrap_or(0),
        0,
    ]);
    let zeros = code.leading_zeros();
    (zeros < 8).then(|| (code >> (31 - 2 * zeros)) - 1)
}

/// The NAL units of a sample. The last one may be cut off.
fn nal_units(mut sample: &[u8], nal_length_size: u8) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = sample.split_at_checked(usize::from(nal_length_size))?;
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let (nal, next) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        sample = next;
        Some(nal)
    })
}

/// Returns true if a sample has sequence parameter sets before its first slice.
#[must_use]
pub(super) fn repeats_parameter_sets(sample: &[u8], nal_length_size: u8) -> bool {
    let kinds = nal_units(sample, nal_length_size).map_while(|nal| Some(nal.first()? & 0x1f));
    kinds.take_while(|kind| *kind > 5).any(|kind| kind == 7)
}

/// Returns true if the first slice of a sample belongs to an instantaneous decoder refresh (IDR).
#[must_use]
pub(super) fn refreshes(sample: &[u8], nal_length_size: u8) -> bool {
    let kinds = nal_units(sample, nal_length_size).map(|nal| nal.first().map_or(0, |header| header & 0x1f));
    kinds.into_iter().find(|kind| *kind <= 5) == Some(5)
}

/// The reason why frames from this keyframe on may look different from what the sample entry says, worded to
/// follow the track's name; `None` if they do not. `sets` are the sample entry's sequence parameter sets.
/// Bytes after the sample's first slice may belong to other samples and are not read.
#[must_use]
pub(crate) fn departure(sample: &[u8], nal_length_size: u8, sets: &[Vec<u8>]) -> Option<&'static str> {
    let kind = |nal: &[u8]| nal.first().map_or(0, |header| header & 0x1f);
    // Slices end the part that is looked at: `sample` may have bytes of other samples behind its last slice.
    let headers = nal_units(sample, nal_length_size).take_while(|nal| !(1..=5).contains(&kind(nal)));
    headers.into_iter().find_map(|nal| match kind(nal) {
        7 if !sets.iter().any(|set| trimmed(set) == trimmed(nal)) => Some("changes its parameter sets"),
        6 if turns(nal) => Some("is turned by messages in its frames"),
        _ => None,
    })
}

/// A parameter set without zero bytes at its end, which have no meaning.
fn trimmed(mut nal: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = nal {
        nal = rest;
    }
    nal
}

/// Returns true if a NAL unit of supplemental enhancement information has a display orientation (ITU-T H.264,
/// D.1.27).
fn turns(nal: &[u8]) -> bool {
    const DISPLAY_ORIENTATION: usize = 47;
    let bytes = unescaped(nal);
    let mut rest = bytes.get(1..).unwrap_or_default();
    // A number is the sum of its bytes, and all bytes but the last are 255.
    let number = |rest: &mut &[u8]| -> Option<usize> {
        let more = rest.iter().take_while(|byte| **byte == 255).count();
        let last = *rest.get(more)?;
        *rest = &rest[more + 1..];
        Some(more * 255 + usize::from(last))
    };
    while let (Some(kind), Some(size)) = (number(&mut rest), number(&mut rest)) {
        let Some((payload, next)) = rest.split_at_checked(size) else { return false };
        // The first bit cancels an earlier orientation.
        if kind == DISPLAY_ORIENTATION && payload.first().is_some_and(|byte| byte & 0x80 == 0) {
            return true;
        }
        rest = next;
    }
    false
}

/// Returns true if a sequence parameter set says that no frame consists of two fields
/// (`frame_mbs_only_flag`); `None` if it cannot be read.
#[must_use]
pub(super) fn is_progressive(set: &[u8]) -> Option<bool> {
    SequenceSet::parse(set).map(|set| set.only_frames)
}

/// The sequence parameter sets of a codec configuration: `avcC`'s, or NAL units after start codes.
pub(super) fn sequence_parameter_sets(configuration: &[u8]) -> Vec<Vec<u8>> {
    match configuration {
        [1, ..] => Avcc::decode_body(&mut &*configuration)
            .map_or_else(|_| Vec::new(), |avcc| avcc.sequence_parameter_sets),
        _ => {
            let units = split_at_start_codes(configuration);
            units
                .filter(|nal| nal.first().is_some_and(|header| header & 0x1f == 7))
                .map(<[u8]>::to_vec)
                .collect()
        }
    }
}

/// The NAL units of a byte stream (annex B).
fn split_at_start_codes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = bytes.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]).map(|(at, _)| at + 3);
    let starts: Vec<_> = starts.collect();
    let ends: Vec<_> = starts.iter().skip(1).map(|start| start - 3).chain([bytes.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|(start, end)| bytes.get(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_prefix_needs_room_and_a_free_id_for_its_parameter_sets() {
        let avcc = |sps: &[u8], pps: &[u8]| Avcc { length_size: 4, ..Avcc::new(sps, pps).unwrap() };
        let sps = [0x67, 0x64, 0x00, 0x28, 0xac, 0xd9];
        // The sets of x264, with its default id and with the id 31.
        assert!(accepts_encoded_prefix(&avcc(&sps, &[0x68, 0xeb, 0xe3])));
        assert!(!accepts_encoded_prefix(&avcc(&sps, &[0x68, 0x04, 0x1f])));
        assert!(!accepts_encoded_prefix(&avcc(&[0x67, 0x64, 0x00, 0x28, 0x04, 0x1f], &[0x68, 0xeb, 0xe3])));
        assert!(!accepts_encoded_prefix(&avcc(&sps, &[0x68])), "truncated");
        let mut full = avcc(&sps, &[0x68, 0xeb, 0xe3]);
        full.sequence_parameter_sets = vec![sps.to_vec(); 31];
        assert!(!accepts_encoded_prefix(&full), "no room");
        assert!(!accepts_encoded_prefix(&Avcc { length_size: 2, ..avcc(&sps, &[0x68, 0xeb, 0xe3]) }));
        assert_eq!(
            [[0x80, 0], [0x40, 0], [0x60, 0], [0x20, 0], [0x04, 0x00], [0, 0]].map(|code| ue(&code, 0)),
            [Some(0), Some(1), Some(2), Some(3), Some(31), None]
        );
    }

    /// The sequence parameter set of a clip that x264 encodes with these options.
    fn set_of(options: &str) -> Vec<u8> {
        let source = "-f lavfi -i testsrc2=size=128x96:rate=25:duration=0.08 -pix_fmt yuv420p";
        let stream = crate::fixtures::ffmpeg(&format!("{source} -c:v libx264 {options} -f h264 pipe:1"));
        sequence_parameter_sets(&stream).remove(0)
    }

    #[test]
    fn parameter_sets_say_whether_frames_may_have_fields() {
        for options in ["", "-profile:v baseline", "-x264-params cqm=jvt", "-pix_fmt yuv444p"] {
            assert_eq!(is_progressive(&set_of(options)), Some(true), "{options}");
        }
        for options in
            ["-flags +ildct", "-x264-params fake-interlaced=1", "-flags +ildct -x264-params cqm=jvt"]
        {
            assert_eq!(is_progressive(&set_of(options)), Some(false), "{options}");
        }
        assert_eq!(is_progressive(&set_of("")[..6]), None, "truncated");
    }

    #[test]
    fn other_parameter_sets_and_orientations_are_departures() {
        let sample = |nals: &[&[u8]]| -> Vec<u8> {
            let with_length =
                |nal: &&[u8]| [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], *nal].concat();
            nals.iter().flat_map(with_length).collect()
        };
        let set = [0x67, 0x64, 0x00, 0x28, 0xac, 0xd9];
        let sets = [set.to_vec()];
        let slice = [0x65, 1, 2, 3];
        let of = |nals: &[&[u8]]| departure(&sample(nals), 4, &sets);
        assert_eq!(of(&[&slice]), None);
        assert_eq!(of(&[&set, &[0x68, 1], &slice]), None, "repeated");
        assert_eq!(of(&[&[&set[..], &[0, 0]].concat(), &slice]), None, "padded");
        let other = [0x67, 0x64, 0x00, 0x28, 0xac, 0xd8];
        assert_eq!(of(&[&other, &slice]), Some("changes its parameter sets"));
        assert_eq!(of(&[&slice, &other]), None, "bytes behind the keyframe, for example of audio");
        // A message of 300 bytes, then the orientation. An escaped zero precedes its size.
        let long = [&[0x06, 5, 255, 45][..], &[9; 300]].concat();
        let turned = [&long[..], &[47, 3, 0x10, 0x00, 0x08, 0x80]].concat();
        assert_eq!(of(&[&turned, &slice]), Some("is turned by messages in its frames"));
        assert_eq!(of(&[&[&long[..], &[47, 1, 0x80, 0x80]].concat(), &slice]), None, "cancelled");
        for cut in 0..turned.len() {
            let _ = of(&[&turned[..cut]]);
        }
    }

    #[test]
    fn parameter_sets_before_the_first_slice_are_found() {
        let nal = |header: u8| [0, 0, 0, 2, header, 0];
        let sample = |headers: &[u8]| headers.iter().flat_map(|header| nal(*header)).collect::<Vec<_>>();
        assert!(repeats_parameter_sets(&sample(&[0x09, 0x67, 0x68, 0x65]), 4));
        assert!(!repeats_parameter_sets(&sample(&[0x09, 0x06, 0x65, 0x67]), 4));
        assert!(!repeats_parameter_sets(&[], 4));
        assert!(!repeats_parameter_sets(&[0; 64], 4));
    }

    #[test]
    fn only_an_idr_slice_is_a_refresh() {
        let nal = |header: u8, length: usize| {
            [&u32::try_from(length).unwrap().to_be_bytes()[..], &[header], &vec![0; length - 1]].concat()
        };
        let (settings, refresh, slice) = (nal(6, 700), nal(0x65, 9), nal(0x41, 9));
        assert!(refreshes(&[settings.clone(), refresh.clone()].concat(), 4));
        assert!(refreshes(&refresh[..5], 4));
        for other in
            [[settings.clone(), slice, refresh].concat(), settings[..300].to_vec(), vec![], vec![0; 64]]
        {
            assert!(!refreshes(&other, 4));
        }
    }
}

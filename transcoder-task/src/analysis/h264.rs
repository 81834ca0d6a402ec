//! H.264: parameter sets and slices.

use mp4_atom::Avcc;

use super::not_copyable::{NotCopyable, why};

/// The id of the parameter sets of an encoded prefix. It must differ from all ids of the source. Encoders
/// count from 0, so this is the highest possible id of a sequence parameter set.
pub(crate) const PREFIX_PARAMETER_SETS: u32 = 31;

/// Checks that the video is 4:2:0 with 8 bits. The profiles Baseline, Main and High always have both, except
/// for rare grey video.
///
/// # Errors
/// The video has another profile, bit depth or chroma format, or no parameter sets.
pub(super) fn check_avcc(avcc: &Avcc) -> Result<(), NotCopyable> {
    if !matches!(avcc.avc_profile_indication, 66 | 77 | 100) {
        return why(format!("its H.264 profile is {}", avcc.avc_profile_indication));
    }
    if avcc.sequence_parameter_sets.is_empty() || avcc.picture_parameter_sets.is_empty() {
        return why("its parameter sets are missing");
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

/// Returns true if the first slice of a sample belongs to an instantaneous decoder refresh (IDR).
#[must_use]
pub(super) fn refreshes(mut sample: &[u8], nal_length_size: u8) -> bool {
    loop {
        let Some((length, rest)) = sample.split_at_checked(usize::from(nal_length_size)) else {
            return false;
        };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        match rest.first().map(|header| header & 0x1f) {
            Some(5) => return length > 0,
            // Other slices.
            None | Some(1..=4) => return false,
            Some(_) => {}
        }
        let Some(next) = rest.get(length..) else { return false };
        sample = next;
    }
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

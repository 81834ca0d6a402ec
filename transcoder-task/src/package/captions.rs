//! Closed captions in the picture's stream (CEA-608 and CEA-708, as ATSC A/53 carries them).
//!
//! Encoders keep the captions of the source, or drop them: libx264 keeps them, other encoders do so only in
//! newer versions of FFmpeg. So the published segments themselves tell which captions there are.

use std::ops::{BitAnd, BitOrAssign};

use memchr::memmem;
use serde::{Deserialize, Serialize};

/// Beginning of the user data that carries captions: country (USA), provider (ATSC), format, and type (3).
/// The same in H.264, HEVC and AV1. None of these bytes needs an emulation prevention byte.
const MARKER: [u8; 8] = [0xb5, 0x00, 0x31, b'G', b'A', b'9', b'4', 0x03];

/// A set of caption channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Captions(u8);

/// A caption channel: one of the four of CEA-608, or the first service of CEA-708.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Cc(u8),
    Service1,
}

/// The bit of the first service of CEA-708. Bits 0 to 3 are the channels of CEA-608.
const SERVICE: u8 = 1 << 4;

impl Captions {
    /// No captions.
    pub(crate) const NONE: Self = Self(0);

    /// The channels that show something in a media segment. Padding does not count.
    #[must_use]
    pub(crate) fn of_segment(segment: &[u8]) -> Self {
        let mut found = Self::NONE;
        for at in memmem::find_iter(segment, &MARKER) {
            found |= Self::of_user_data(segment.get(at + MARKER.len()..).unwrap_or_default());
        }
        found
    }

    /// The channels in `user_data_type_structure` (A/53 part 4, 6.2.3.1).
    fn of_user_data(data: &[u8]) -> Self {
        let Some(([flags, _reserved], triplets)) = data.split_first_chunk() else { return Self::NONE };
        let count = usize::from(flags & 0x1f);
        let mut found = Self::NONE;
        for [header, first, second] in triplets.as_chunks().0.iter().take(count) {
            // A marker, the flag for valid data, and the type.
            let kind = (header & 0xfc == 0xfc).then_some(header & 3);
            // Without parity.
            let code = first & 0x7f;
            match (kind, code) {
                // Captions begin with a control code, which names the channel. Text follows it.
                (Some(field @ 0..=1), 0x10..=0x17) => found.0 |= 1 << (2 * field),
                (Some(field @ 0..=1), 0x18..=0x1f) => found.0 |= 2 << (2 * field),
                // The beginning of a packet, which begins with a block: number of the service, and bytes.
                (Some(3), _) if second >> 5 == 1 && second & 0x1f > 0 => found.0 |= SERVICE,
                _ => {}
            }
        }
        found
    }

    /// Captions in one channel of CEA-608.
    #[cfg(test)]
    pub(crate) fn of_tests(channel: u8) -> Self {
        Self(1 << (channel - 1))
    }

    #[must_use]
    pub(crate) fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// The channels to announce. Services of CEA-708 repeat the captions of CEA-608, which more players show.
    pub(crate) fn channels(self) -> impl Iterator<Item = Channel> {
        let of_608 = (0..4_u8).filter(move |bit| self.0 & 1 << bit != 0).map(|bit| Channel::Cc(bit + 1));
        let of_708 = (self.0 == SERVICE).then_some(Channel::Service1);
        of_608.chain(of_708)
    }
}

impl BitOrAssign for Captions {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Captions {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// User data with these triplets, after other bytes.
    fn segment(triplets: &[[u8; 3]]) -> Vec<u8> {
        let head = [0x40 | triplets.len() as u8, 0xff];
        [&[0, 1, 2], &MARKER[..], &head, triplets.as_flattened(), &[0xff, 0x80]].concat()
    }

    fn channels(triplets: &[[u8; 3]]) -> Vec<Channel> {
        Captions::of_segment(&segment(triplets)).channels().collect()
    }

    #[test]
    fn control_codes_tell_the_channels() {
        let padding = [[0xfc, 0x80, 0x80], [0xfd, 0x80, 0x80], [0xfa, 0, 0]];
        assert_eq!(channels(&padding), []);
        // Resume caption loading, with parity; text alone.
        assert_eq!(channels(&[[0xfc, 0x94, 0x20], [0xfc, b'h', b'i']]), [Channel::Cc(1)]);
        assert_eq!(channels(&[[0xfc, b'h', b'i']]), []);
        assert_eq!(channels(&[[0xfd, 0x15, 0x2c], [0xfd, 0x1c, 0x2c]]), [Channel::Cc(3), Channel::Cc(4)]);
        // Data for programme guides (XDS) is no caption, and invalid data does not count.
        assert_eq!(channels(&[[0xfd, 0x01, 0x03], [0xf8, 0x94, 0x20]]), []);
        assert_eq!(channels(&[[0xff, 0x02, 0x21], [0xfe, 0x41, 0x42]]), [Channel::Service1]);
        assert_eq!(channels(&[[0xff, 0x02, 0x21], [0xfc, 0x94, 0x20]]), [Channel::Cc(1)]);
    }

    /// An H.264 stream of a second, with user data before each frame.
    fn captioned(triplets: &[[u8; 3]]) -> Vec<u8> {
        let stream = crate::fixtures::ffmpeg(
            "-f lavfi -i testsrc2=size=320x180:rate=25:duration=1 -pix_fmt yuv420p -c:v libx264 -preset veryfast \
             -bf 0 -x264-params slices=1 -f h264 pipe:1",
        );
        let data = &segment(triplets)[3..];
        let payload = &data[..data.len() - 1];
        let unit = [&[0, 0, 0, 1, 6, 4, payload.len() as u8], payload, &[0x80]].concat();
        let mut with_captions = Vec::new();
        let mut copied = 0;
        for at in memmem::find_iter(&stream, &[0, 0, 1]) {
            if stream.get(at + 3).is_some_and(|header| matches!(header & 0x1f, 1 | 5)) {
                with_captions.extend_from_slice(&stream[copied..at]);
                with_captions.extend_from_slice(&unit);
                copied = at;
            }
        }
        with_captions.extend_from_slice(&stream[copied..]);
        with_captions
    }

    #[test]
    fn ffmpeg_keeps_captions_in_copied_and_encoded_h264() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw.h264");
        std::fs::write(&raw, captioned(&[[0xfc, 0x94, 0x20], [0xfd, 0x80, 0x80]])).unwrap();
        let file = crate::fixtures::clip(&folder, "clip.mp4", &format!("-r 25 -i {} -c copy", raw.display()));
        for codec in ["copy", "libx264 -preset veryfast -vf scale=160:90,setsar=1"] {
            let fragments = crate::fixtures::ffmpeg(&format!(
                "-i {} -c:v {codec} -movflags empty_moov+default_base_moof+frag_keyframe -f mp4 pipe:1",
                file.display()
            ));
            assert_eq!(Captions::of_segment(&fragments).channels().collect::<Vec<_>>(), [Channel::Cc(1)]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted(
            before in prop::collection::vec(any::<u8>(), 0..40),
            after in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = [&before[..], &MARKER[..], &after].concat();
            let channels = Captions::of_segment(&bytes).channels().count();
            prop_assert!(channels <= 4);
        }
    }
}

//! H.264: sequence parameter sets.

/// The beginning of a sequence parameter set (ITU-T H.264, 7.3.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SequenceSet {
    pub(super) profile: u8,
    pub(super) level: u8,
    pub(super) width_macroblocks: u32,
    /// Of a frame.
    pub(super) height_macroblocks: u32,
    pub(super) reference_frames: u32,
    /// Frames in the decoder's buffer, if stated.
    pub(super) buffered_frames: Option<u32>,
    /// True if no frame consists of two fields (`frame_mbs_only_flag`).
    pub(super) only_frames: bool,
}

impl SequenceSet {
    /// Parses a NAL unit.
    pub(super) fn parse(nal: &[u8]) -> Option<Self> {
        let (&[_, profile, _, level], rest) = nal.split_first_chunk()?;
        let mut bits = Bits { bytes: unescaped(rest), at: 0 };
        bits.ue()?;
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            let chroma = bits.ue()?;
            bits.skip(u32::from(chroma == 3))?;
            bits.ue()?;
            bits.ue()?;
            bits.skip(1)?;
            if bits.flag()? {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        bits.scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.ue()?;
        match bits.ue()? {
            0 => _ = bits.ue()?,
            1 => {
                bits.skip(1)?;
                bits.ue()?;
                bits.ue()?;
                for _ in 0..bits.ue().filter(|count| *count <= 255)? {
                    bits.ue()?;
                }
            }
            _ => {}
        }
        let reference_frames = bits.ue()?;
        bits.skip(1)?;
        let width_macroblocks = bits.ue()?.checked_add(1)?;
        let map_units = bits.ue()?.checked_add(1)?;
        let only_frames = bits.flag()?;
        let height_macroblocks = map_units.checked_mul(if only_frames { 1 } else { 2 })?;
        bits.skip(u32::from(!only_frames) + 1)?;
        if bits.flag()? {
            for _ in 0..4 {
                bits.ue()?;
            }
        }
        let buffered_frames = if bits.flag()? { bits.vui().flatten() } else { None };
        Some(Self {
            profile,
            level,
            width_macroblocks,
            height_macroblocks,
            reference_frames,
            buffered_frames,
            only_frames,
        })
    }
}

/// A NAL unit without its emulation prevention bytes (7.4.1).
pub(super) fn unescaped(nal: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let keep = |byte: &u8| {
        let escape = zeros >= 2 && *byte == 3;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        !escape
    };
    nal.iter().copied().filter(keep).collect()
}

/// Reads bits, the highest of each byte first.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0_u32, |value, _| {
            let bit = self.bytes.get(self.at / 8)? >> (7 - self.at % 8) & 1;
            self.at += 1;
            Some(value << 1 | u32::from(bit))
        })
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.bits(1)? == 1)
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.at = self.at.checked_add(count as usize).filter(|at| *at <= self.bytes.len() * 8)?;
        Some(())
    }

    /// An unsigned Exp-Golomb code.
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// A signed Exp-Golomb code.
    fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 0 { -(code / 2) } else { (code + 1) / 2 })
    }

    fn scaling_list(&mut self, size: usize) -> Option<()> {
        let mut next = 8;
        for _ in 0..size {
            next = (next + self.se()?).rem_euclid(256);
            // The rest repeats the last value.
            if next == 0 {
                break;
            }
        }
        Some(())
    }

    /// Reads the usability information (annex E); the result is `max_dec_frame_buffering`, if stated.
    fn vui(&mut self) -> Option<Option<u32>> {
        const EXTENDED_ASPECT: u32 = 255;
        if self.flag()? && self.bits(8)? == EXTENDED_ASPECT {
            self.skip(32)?;
        }
        if self.flag()? {
            self.skip(1)?;
        }
        if self.flag()? {
            self.skip(4)?;
            if self.flag()? {
                self.skip(24)?;
            }
        }
        if self.flag()? {
            self.ue()?;
            self.ue()?;
        }
        if self.flag()? {
            self.skip(65)?;
        }
        let (nal, vcl) = (self.reference_decoder()?, self.reference_decoder()?);
        if nal || vcl {
            self.skip(1)?;
        }
        self.skip(1)?;
        if !self.flag()? {
            return Some(None);
        }
        self.skip(1)?;
        for _ in 0..5 {
            self.ue()?;
        }
        self.ue().map(Some)
    }

    /// Skips the parameters of a hypothetical reference decoder, if they are present.
    fn reference_decoder(&mut self) -> Option<bool> {
        let present = self.flag()?;
        if present {
            let count = self.ue().filter(|count| *count < 32)?;
            self.skip(8)?;
            for _ in 0..=count {
                self.ue()?;
                self.ue()?;
                self.skip(1)?;
            }
            self.skip(20)?;
        }
        Some(present)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_accepted(nal in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = SequenceSet::parse(&nal);
        }
    }
}

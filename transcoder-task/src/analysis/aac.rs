//! AAC: the AudioSpecificConfig.

use super::not_copyable::{NotCopyable, why};

/// Channels and sample rate of an `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1) of AAC-LC.
///
/// # Errors
/// The config is not of AAC-LC, or its channels or sample rate are unusual.
pub(super) fn aac_lc(config: &[u8]) -> Result<(u8, u32), NotCopyable> {
    const SAMPLE_RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let mut start = [0; 8];
    start.iter_mut().zip(config).for_each(|(to, from)| *to = *from);
    let bits = u64::from_be_bytes(start);
    let field = |at: u32, length: u32| (bits << at) >> (64 - length);
    if field(0, 5) != 2 {
        return why("its AAC is not AAC-LC");
    }
    let Some(sample_rate) = SAMPLE_RATES.get(field(5, 4) as usize) else {
        return why("its sample rate is unusual");
    };
    let channels = field(9, 4) as u8;
    if !(1..=7).contains(&channels) {
        return why("its channel configuration is unusual");
    }
    // Flags: frame length, core coder, extension.
    if field(13, 3) != 0 {
        return why("its AAC has unusual flags");
    }
    // The sync word of an extension, and its flag for spectral band replication.
    if field(16, 11) == 0x2b7 && field(32, 1) == 1 {
        return why("its AAC is HE-AAC");
    }
    Ok((channels, *sample_rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_specific_configs() {
        assert_eq!(aac_lc(&[0x11, 0x90]), Ok((2, 48_000)));
        assert_eq!(aac_lc(&[0x12, 0x08, 0x56, 0xe5, 0x00]), Ok((1, 44_100)), "the config that FFmpeg writes");
        for (config, expected) in [
            (&[0x13, 0x90, 0x56, 0xe5, 0xa0][..], "its AAC is HE-AAC"),
            (&[0x2b, 0x92, 0x08, 0x00], "its AAC is not AAC-LC"),
            (&[0x11, 0x80], "its channel configuration is unusual"),
            (&[0x17, 0x90], "its sample rate is unusual"),
            (&[0x11, 0x94], "its AAC has unusual flags"),
            (&[], "its AAC is not AAC-LC"),
        ] {
            assert_eq!(aac_lc(config).unwrap_err().to_string(), expected, "{config:x?}");
        }
    }
}

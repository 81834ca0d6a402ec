//! RFC 6381 codec strings, for H.264, HEVC, AV1 and AAC. Written by hand, because no crate covers all four.

use std::fmt::Write;

use mp4_atom::{Codec, Hvcc};

/// The codec string of a sample entry: `avc1.64001f`, `hvc1.1.6.L93.90`, `av01.0.04M.08`, `mp4a.40.2`; `None`
/// for other codecs.
#[must_use]
pub fn codec_string(entry: &Codec) -> Option<String> {
    Some(match entry {
        Codec::Avc1(avc1) => format!(
            "avc1.{:02x}{:02x}{:02x}",
            avc1.avcc.avc_profile_indication, avc1.avcc.profile_compatibility, avc1.avcc.avc_level_indication
        ),
        Codec::Hvc1(hvc1) => hevc(&hvc1.hvcc),
        Codec::Av01(av01) => {
            let config = &av01.av1c;
            let bits = match (config.high_bitdepth, config.twelve_bit) {
                (false, _) => 8,
                (true, false) => 10,
                (true, true) => 12,
            };
            let tier = if config.seq_tier_0 { 'H' } else { 'M' };
            format!("av01.{}.{:02}{tier}.{bits:02}", config.seq_profile, config.seq_level_idx_0)
        }
        Codec::Mp4a(mp4a) => {
            let config = &mp4a.esds.es_desc.dec_config;
            let audio_object_type = config.dec_specific.as_ref().map_or(2, |specific| specific.profile);
            format!("mp4a.{:02x}.{audio_object_type}", config.object_type_indication)
        }
        _ => return None,
    })
}

/// ISO/IEC 14496-15, annex E.3: profile, compatibility with its bits reversed, tier and level, constraints
/// without trailing zero bytes.
fn hevc(hvcc: &Hvcc) -> String {
    let space = ["", "A", "B", "C"].get(usize::from(hvcc.general_profile_space)).copied().unwrap_or("");
    let compatibility = u32::from_be_bytes(hvcc.general_profile_compatibility_flags).reverse_bits();
    let constraints = &hvcc.general_constraint_indicator_flags;
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut text = format!(
        "hvc1.{space}{}.{compatibility:X}.{}{}",
        hvcc.general_profile_idc,
        if hvcc.general_tier_flag { 'H' } else { 'L' },
        hvcc.general_level_idc
    );
    for byte in constraints.iter().take(used) {
        // Writing to a string cannot fail.
        let _ = write!(text, ".{byte:X}");
    }
    text
}

//! The meaning of a source's colour values, decided from its tags.

use crate::analysis::media::Video;

/// From this width, or above [`SD_HEIGHT`], untagged video is BT.709, as in mpv and VLC.
const HD_WIDTH: u32 = 1280;
/// Height of PAL, the tallest standard definition.
const SD_HEIGHT: u32 = 576;
/// Luminance of diffuse white in cd/m² (BT.2408-7, section 2.1), used as SDR's peak.
pub(crate) const WHITE: f64 = 203.0;
/// Peak in cd/m² of a programme without metadata, and of HLG's reference display (BT.2100-2, table 5).
pub(crate) const USUAL_PEAK: u32 = 1000;
/// Peak of PQ in cd/m²: SMPTE ST 2084.
pub(crate) const PQ_PEAK: f64 = 10_000.0;

/// Colour tags of a video track from ffprobe, with FFmpeg's names; `unknown` means absent.
///
/// For H.264, HEVC, VP9 and AV1 these are the bitstream's tags, not the container's, because ffprobe opens
/// the decoder.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tags<'a> {
    /// `pix_fmt`.
    pub(crate) pixel_format: &'a str,
    /// `color_space`.
    pub(crate) matrix: Option<&'a str>,
    /// `color_transfer`.
    pub(crate) transfer: Option<&'a str>,
    /// `color_primaries`.
    pub(crate) primaries: Option<&'a str>,
    /// `color_range` is `pc`.
    pub(crate) full_range: bool,
    /// Stored size in pixels.
    pub(crate) width: u32,
    /// Stored size in pixels.
    pub(crate) height: u32,
    /// `dv_profile` and `dv_bl_signal_compatibility_id` of the side data "DOVI configuration record".
    pub(crate) dolby_vision: Option<(u32, u32)>,
    /// Peak in cd/m²: `max_content` of "Content light level metadata", else `max_luminance` of "Mastering
    /// display metadata".
    pub(crate) peak: Option<f64>,
}

/// The meaning of a source's colour values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour {
    pub(crate) layout: PixelLayout,
    pub(crate) full: bool,
    /// High dynamic range.
    pub(crate) signal: Option<Signal>,
    /// SDR with a wider gamut than BT.709.
    pub(crate) wide: Option<(Gamut, Curve)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PixelLayout {
    Rgb,
    Grey,
    Yuv(Matrix),
    /// H.273's matrix 8, which FFmpeg's scaler cannot read.
    YCgCo {
        /// True if planes have more than 8 bits.
        deep: bool,
    },
}

/// Coefficients of Y'CbCr (ITU-T H.273, table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matrix {
    Bt709,
    Bt601,
    Fcc,
    Smpte240m,
    Bt2020,
}

/// A signal that is not SDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// BT.2100 PQ in BT.2020 colours: HDR10, HDR10+, Dolby Vision profiles 8.1 and 7.
    Pq {
        /// Peak in cd/m².
        peak: u32,
    },
    /// BT.2100 HLG in BT.2020 colours: also Dolby Vision profile 8.4.
    Hlg,
    /// Dolby Vision profile 5: planes are I, P, T (see `ffmpeg::tone_map`), not Y, Cb, Cr.
    DolbyVision5,
}

/// The transfer function of an SDR display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    /// IEC 61966-2-1.
    Srgb,
    /// A power function, with its exponent in tenths: 24 is BT.1886.
    Power(u32),
}

/// Primaries other than BT.709's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gamut {
    Bt2020,
    /// Display P3 (SMPTE EG 432-1). Video with the tag of DCI-P3 is almost always this, too.
    P3,
}

impl Signal {
    /// PQ with the peak of the metadata in cd/m² (brightest pixel or mastering display). A peak below diffuse
    /// white or above PQ's limit is an error of the metadata and is ignored.
    #[must_use]
    pub(crate) fn pq(stated: Option<f64>) -> Self {
        let sensible = stated.filter(|peak| (WHITE..=PQ_PEAK).contains(peak));
        Self::Pq { peak: sensible.map_or(USUAL_PEAK, |peak| peak.round() as u32) }
    }
}

impl Colour {
    /// Interprets the tags.
    #[must_use]
    pub(crate) fn of(tags: &Tags<'_>) -> Self {
        let signal = signal(tags);
        let wide = if signal.is_none() { wide(tags) } else { None };
        let format = tags.pixel_format;
        let rgb = ["gbr", "rgb", "bgr", "argb", "abgr", "0rgb", "0bgr", "pal8", "ya8", "ya16"];
        let layout = if rgb.iter().any(|name| format.starts_with(name)) {
            PixelLayout::Rgb
        } else if format.starts_with("gray") {
            PixelLayout::Grey
        } else if known(tags.matrix) == Some("ycgco") {
            PixelLayout::YCgCo { deep: format.ends_with("le") || format.ends_with("be") }
        } else {
            PixelLayout::Yuv(matrix(tags, signal, wide))
        };
        let full = tags.full_range || format.starts_with("yuvj");
        Self { layout, full, signal, wide }
    }

    /// Returns true if every player displays it correctly without conversion.
    #[must_use]
    pub(crate) fn needs_no_conversion(self) -> bool {
        self.signal.is_none()
            && self.wide.is_none()
            && !self.full
            && matches!(self.layout, PixelLayout::Yuv(_))
    }
}

/// The pixel format in which frames of this format are put over black; absent if they have no alpha channel.
/// It keeps the meaning of their colour values.
#[must_use]
pub(super) fn over_black(pixel_format: &str) -> Option<&'static str> {
    let is = |names: &[&str]| names.iter().any(|name| pixel_format.starts_with(name));
    let deep = pixel_format.ends_with("le") || pixel_format.ends_with("be");
    if is(&["yuva", "ayuv", "vuya"]) {
        Some(if deep { "yuva444p10le" } else { "yuva444p" })
    } else if is(&["rgba", "bgra", "argb", "abgr", "gbrap", "pal8", "ya8", "ya16"]) {
        Some(if deep { "gbrap16le" } else { "gbrap" })
    } else {
        None
    }
}

/// The colours of a video track.
#[must_use]
pub(super) fn colour(video: &Video) -> Colour {
    let colour = &video.colour;
    Colour::of(&Tags {
        pixel_format: &video.pixel_format,
        matrix: colour.space.as_deref(),
        transfer: colour.transfer.as_deref(),
        primaries: colour.primaries.as_deref(),
        full_range: colour.full_range == Some(true),
        width: video.width,
        height: video.height,
        dolby_vision: colour.dolby_vision,
        peak: colour.peak_nits,
    })
}

fn signal(tags: &Tags<'_>) -> Option<Signal> {
    // Profile 10 is AV1. Compatibility 0 means that only Dolby Vision can display the base layer.
    if matches!(tags.dolby_vision, Some((5, _) | (10, 0))) {
        return Some(Signal::DolbyVision5);
    }
    let transfer = known(tags.transfer).or(match tags.dolby_vision {
        Some((_, 1 | 6)) => Some("smpte2084"),
        Some((_, 4)) => Some("arib-std-b67"),
        _ => None,
    });
    match transfer {
        Some("smpte2084") => Some(Signal::pq(tags.peak)),
        Some("arib-std-b67") => Some(Signal::Hlg),
        _ => None,
    }
}

/// The gamut and transfer function of SDR video whose gamut is wider than BT.709.
fn wide(tags: &Tags<'_>) -> Option<(Gamut, Curve)> {
    let gamut = match tags.primaries {
        Some("bt2020") => Gamut::Bt2020,
        Some("smpte431" | "smpte432") => Gamut::P3,
        _ => return None,
    };
    // Camera curves (BT.709, BT.2020) are meant for a display with BT.1886.
    let curve = match tags.transfer {
        Some("iec61966-2-1") => Curve::Srgb,
        Some("gamma22" | "bt470m") => Curve::Power(22),
        Some("gamma28" | "bt470bg") => Curve::Power(28),
        Some("smpte428") => Curve::Power(26),
        _ => Curve::Power(24),
    };
    Some((gamut, curve))
}

fn matrix(tags: &Tags<'_>, signal: Option<Signal>, wide: Option<(Gamut, Curve)>) -> Matrix {
    let bt2020 =
        matches!(signal, Some(Signal::Pq { .. } | Signal::Hlg)) || matches!(wide, Some((Gamut::Bt2020, _)));
    match (known(tags.matrix), bt2020) {
        (Some("bt709"), _) => Matrix::Bt709,
        (Some("smpte170m" | "bt470bg"), _) => Matrix::Bt601,
        (Some("fcc"), _) => Matrix::Fcc,
        (Some("smpte240m"), _) => Matrix::Smpte240m,
        (Some("bt2020nc" | "bt2020c"), _) => Matrix::Bt2020,
        (_, true) => Matrix::Bt2020,
        _ if tags.width >= HD_WIDTH || tags.height > SD_HEIGHT => Matrix::Bt709,
        _ => Matrix::Bt601,
    }
}

fn known(tag: Option<&str>) -> Option<&str> {
    tag.filter(|tag| !matches!(*tag, "unknown" | "unspecified" | "reserved"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const HD: Tags<'_> = Tags {
        pixel_format: "yuv420p",
        matrix: None,
        transfer: None,
        primaries: None,
        full_range: false,
        width: 1920,
        height: 1080,
        dolby_vision: None,
        peak: None,
    };

    pub(crate) fn hdr(transfer: &'static str) -> Tags<'static> {
        Tags {
            pixel_format: "yuv420p10le",
            matrix: Some("bt2020nc"),
            transfer: Some(transfer),
            primaries: Some("bt2020"),
            ..HD
        }
    }

    #[test]
    fn small_untagged_video_is_bt601() {
        let matrix = |width, height| match Colour::of(&Tags { width, height, ..HD }).layout {
            PixelLayout::Yuv(matrix) => matrix,
            other => panic!("{other:?}"),
        };
        assert_eq!(matrix(720, 576), Matrix::Bt601);
        assert_eq!(matrix(1280, 534), Matrix::Bt709);
        assert_eq!(matrix(720, 1280), Matrix::Bt709);
    }

    #[test]
    fn formats_with_alpha() {
        for format in ["yuv420p", "gbrp", "rgb24", "gray", "rgb48le", "yuyv422", "0rgb", ""] {
            assert_eq!(over_black(format), None, "{format}");
        }
        assert_eq!(over_black("yuva444p12le"), Some("yuva444p10le"));
        assert_eq!(over_black("yuva420p"), Some("yuva444p"));
        assert_eq!(["argb", "rgba64be", "ya8"].map(over_black), ["gbrap", "gbrap16le", "gbrap"].map(Some));
    }

    #[test]
    fn ycgco_is_converted() {
        let colour = |pixel_format| Colour::of(&Tags { pixel_format, matrix: Some("ycgco"), ..HD });
        assert_eq!(colour("yuv444p").layout, PixelLayout::YCgCo { deep: false });
        assert_eq!(colour("yuv420p10le").layout, PixelLayout::YCgCo { deep: true });
        assert!(!colour("yuv420p").needs_no_conversion());
    }

    #[test]
    fn contradicting_tags_of_a_phone_are_full_range_bt601() {
        let tags = Tags {
            pixel_format: "yuvj420p",
            matrix: Some("smpte170m"),
            transfer: Some("bt2020-12"),
            primaries: Some("bt470bg"),
            full_range: true,
            ..HD
        };
        let layout = PixelLayout::Yuv(Matrix::Bt601);
        let expected = Colour { layout, full: true, signal: None, wide: None };
        assert_eq!(Colour::of(&tags), expected);
    }

    #[test]
    fn every_kind_of_high_dynamic_range_is_recognised() {
        let signal = |tags: &Tags<'_>| Colour::of(tags).signal;
        let (pq, hlg) = (hdr("smpte2084"), hdr("arib-std-b67"));
        let dolby =
            |profile, compatibility, tags| Tags { dolby_vision: Some((profile, compatibility)), ..tags };
        assert_eq!(signal(&pq), Some(Signal::Pq { peak: 1000 }));
        assert_eq!(signal(&Tags { peak: Some(4000.0), ..pq }), Some(Signal::Pq { peak: 4000 }));
        assert_eq!(signal(&hlg), Some(Signal::Hlg));
        assert_eq!(signal(&dolby(8, 1, pq)), Some(Signal::Pq { peak: 1000 }));
        assert_eq!(signal(&dolby(8, 4, hlg)), Some(Signal::Hlg));
        assert_eq!(signal(&dolby(8, 1, HD)), Some(Signal::Pq { peak: 1000 }));
        assert_eq!(signal(&dolby(8, 4, HD)), Some(Signal::Hlg));
        assert_eq!(signal(&dolby(8, 2, HD)), None, "its base layer is SDR");
        for tags in [HD, pq] {
            assert_eq!(signal(&dolby(5, 0, tags)), Some(Signal::DolbyVision5));
            assert_eq!(signal(&dolby(10, 0, tags)), Some(Signal::DolbyVision5));
        }
    }

    #[test]
    fn wide_gamuts_have_their_own_curve() {
        let wide = |tags: &Tags<'_>| Colour::of(tags).wide;
        assert_eq!(wide(&hdr("bt709")), Some((Gamut::Bt2020, Curve::Power(24))));
        assert_eq!(wide(&hdr("smpte2084")), None);
        let p3 = Tags { primaries: Some("smpte432"), matrix: Some("bt709"), ..HD };
        assert_eq!(wide(&p3), Some((Gamut::P3, Curve::Power(24))));
        assert_eq!(wide(&Tags { transfer: Some("iec61966-2-1"), ..p3 }), Some((Gamut::P3, Curve::Srgb)));
        assert_eq!(wide(&Tags { primaries: Some("bt709"), ..p3 }), None);
        assert!(!Colour::of(&p3).needs_no_conversion());
    }
}

//! What the numbers of a source's picture mean, and the filters that make them what every player takes for
//! granted: 8-bit 4:2:0, limited range, BT.709, and tagged so.

use crate::ffmpeg::tone_map::{Gamut, Signal};

/// A player that finds no tags takes small pictures for BT.601 and large ones for BT.709, which would change
/// colours from rung to rung.
const TAGS: &str = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709";
/// From this width, or above this height, a picture without tags is taken for BT.709 (as mpv and VLC do).
const HD_WIDTH: u32 = 1280;
/// Of PAL, the tallest of standard definition.
const SD_HEIGHT: u32 = 576;

/// What ffprobe says about a video track; words are FFmpeg's, `unknown` is as good as absent.
///
/// For H.264, HEVC, VP9 and AV1 the bitstream's tags are in these fields, whatever the container says, because
/// FFmpeg opens the decoder before it answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tags<'a> {
    /// `pix_fmt`.
    pub pixel_format: &'a str,
    /// `color_space`.
    pub matrix: Option<&'a str>,
    /// `color_transfer`.
    pub transfer: Option<&'a str>,
    /// `color_primaries`.
    pub primaries: Option<&'a str>,
    /// `color_range` is `pc`.
    pub full_range: bool,
    /// Stored, in pixels.
    pub width: u32,
    /// Stored, in pixels.
    pub height: u32,
    /// `dv_profile` and `dv_bl_signal_compatibility_id` of the side data "DOVI configuration record".
    pub dolby_vision: Option<(u32, u32)>,
    /// In cd/m²: `max_content` of "Content light level metadata", or else `max_luminance` of "Mastering display
    /// metadata".
    pub peak: Option<f64>,
}

/// How a source's colours are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    layout: Layout,
    full: bool,
    /// To be looked up in a table; absent for what is BT.709 but for matrix and range.
    signal: Option<Signal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Rgb,
    Grey,
    Yuv(Matrix),
}

/// Coefficients of Y'CbCr (ITU-T H.273, table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matrix {
    Bt709,
    Bt601,
    Fcc,
    Smpte240m,
    Bt2020,
}

impl Matrix {
    /// As `scale` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Bt709 => "bt709",
            Self::Bt601 => "bt601",
            Self::Fcc => "fcc",
            Self::Smpte240m => "smpte240m",
            Self::Bt2020 => "bt2020",
        }
    }

    /// A set of the filter `colorspace` that has this matrix.
    fn set(self) -> Option<&'static str> {
        match self {
            Self::Bt709 => None,
            Self::Bt601 => Some("bt601-6-525"),
            Self::Fcc => Some("bt470m"),
            Self::Smpte240m => Some("smpte240m"),
            Self::Bt2020 => Some("bt2020"),
        }
    }
}

impl Colour {
    /// What the tags amount to.
    pub fn of(tags: &Tags<'_>) -> Self {
        let signal = signal(tags);
        let format = tags.pixel_format;
        let rgb = ["gbr", "rgb", "bgr", "argb", "abgr", "0rgb", "0bgr", "pal8"];
        let layout = if rgb.iter().any(|name| format.starts_with(name)) {
            Layout::Rgb
        } else if format.starts_with("gray") {
            Layout::Grey
        } else {
            Layout::Yuv(matrix(tags, signal))
        };
        let full = tags.full_range || format.starts_with("yuvj");
        Self { layout, full, signal }
    }

    /// Whether every player takes it as it is.
    pub fn is_ordinary(self) -> bool {
        self.signal.is_none() && !self.full && matches!(self.layout, Layout::Yuv(_))
    }

    /// Text of the table that [`Colour::filters`] names, if it names one.
    pub fn cube(self) -> Option<String> {
        self.signal.map(Signal::cube)
    }

    /// The filters from decoded, progressive frames to frames of a rung, joined by commas. `flags` is the
    /// scaler's; `cube` is where the text of [`Colour::cube`] is: a path that ends in `.cube`, without any of
    /// FFmpeg's special characters (`:,;[]'\`).
    pub fn filters(self, width: u32, height: u32, flags: &str, cube: &str) -> String {
        let size = format!("scale={width}:{height}:flags={flags}");
        // 16 bits, because for 10 and 12 FFmpeg has no fast lookup (the whole chain takes half the time).
        let lookup = format!("lut3d=file={cube}");
        let last = format!("scale=flags={flags}:out_color_matrix=bt709:out_range=tv,format=yuv420p");
        match (self.signal, self.layout) {
            // I, P and T go as they are into planes that are called G, B and R. The ranges are named only so
            // that the scaler leaves them alone.
            (Some(Signal::DolbyVision5), _) => format!(
                "{size}:in_range=pc:out_range=pc,format=yuv444p16le,mergeplanes=map0p=0:map1p=1:map2p=2:format=gbrp16le,\
                 setparams=range=pc:colorspace=gbr,{lookup},{last},{TAGS}"
            ),
            (Some(_), Layout::Yuv(matrix)) => {
                let range = if self.full { "pc" } else { "tv" };
                let matrix = matrix.name();
                format!(
                    "{size}:in_color_matrix={matrix}:in_range={range},format=gbrp16le,{lookup},{last},{TAGS}"
                )
            }
            (Some(_), Layout::Rgb | Layout::Grey) => format!("{size},format=gbrp16le,{lookup},{last},{TAGS}"),
            (None, Layout::Rgb) => {
                format!("{size}:out_color_matrix=bt709:out_range=tv,format=yuv420p,{TAGS}")
            }
            // The scaler takes grey for full range whatever the tags say.
            (None, Layout::Grey) if !self.full => {
                format!("{size}:in_range=pc:out_range=pc,format=yuv420p,{TAGS}")
            }
            (None, Layout::Grey) => format!("{size}:in_range=pc:out_range=tv,format=yuv420p,{TAGS}"),
            (None, Layout::Yuv(matrix)) => {
                let range = if self.full { ":in_range=pc:out_range=tv" } else { "" };
                // `fast` leaves primaries alone: BT.601's differ by less than cameras do, and converting them
                // takes more time than the scaling. The scaler's own conversion goes by way of 8-bit RGB.
                let matrix = matrix.set().map_or_else(String::new, |set| {
                    format!(",colorspace=iall={set}:irange=tv:all=bt709:range=tv:fast=1")
                });
                format!("{size}{range},format=yuv420p{matrix},{TAGS}")
            }
        }
    }
}

fn signal(tags: &Tags<'_>) -> Option<Signal> {
    // Profile 10 is AV1; compatibility 0 says that nothing but Dolby Vision can show the base layer.
    if matches!(tags.dolby_vision, Some((5, _) | (10, 0))) {
        return Some(Signal::DolbyVision5);
    }
    let transfer = known(tags.transfer).or(match tags.dolby_vision {
        Some((_, 1 | 6)) => Some("smpte2084"),
        Some((_, 4)) => Some("arib-std-b67"),
        _ => None,
    });
    match (transfer, tags.primaries) {
        (Some("smpte2084"), _) => Some(Signal::pq(tags.peak)),
        (Some("arib-std-b67"), _) => Some(Signal::Hlg),
        (_, Some("bt2020")) => Some(Signal::Wide(Gamut::Bt2020)),
        (_, Some("smpte432")) => Some(Signal::Wide(Gamut::P3)),
        _ => None,
    }
}

fn matrix(tags: &Tags<'_>, signal: Option<Signal>) -> Matrix {
    match (known(tags.matrix), signal) {
        (Some("bt709"), _) => Matrix::Bt709,
        (Some("smpte170m" | "bt470bg"), _) => Matrix::Bt601,
        (Some("fcc"), _) => Matrix::Fcc,
        (Some("smpte240m"), _) => Matrix::Smpte240m,
        (Some("bt2020nc" | "bt2020c"), _) => Matrix::Bt2020,
        (_, Some(Signal::Pq { .. } | Signal::Hlg | Signal::Wide(Gamut::Bt2020))) => Matrix::Bt2020,
        _ if tags.width >= HD_WIDTH || tags.height > SD_HEIGHT => Matrix::Bt709,
        _ => Matrix::Bt601,
    }
}

fn known(tag: Option<&str>) -> Option<&str> {
    tag.filter(|tag| !matches!(*tag, "unknown" | "unspecified" | "reserved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: Tags<'_> = Tags {
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

    fn hdr(transfer: &'static str) -> Tags<'static> {
        Tags {
            pixel_format: "yuv420p10le",
            matrix: Some("bt2020nc"),
            transfer: Some(transfer),
            primaries: Some("bt2020"),
            ..HD
        }
    }

    fn filters(tags: &Tags<'_>) -> String {
        Colour::of(tags).filters(1280, 720, "bicubic", "t.cube")
    }

    #[test]
    fn what_is_bt709_already_is_only_scaled() {
        let expected = format!("scale=1280:720:flags=bicubic,format=yuv420p,{TAGS}");
        let tagged = Tags { matrix: Some("bt709"), ..HD };
        for tags in [HD, tagged, Tags { matrix: Some("unknown"), ..HD }, Tags { width: 720, ..HD }] {
            assert_eq!(filters(&tags), expected, "{tags:?}");
            assert_eq!(Colour::of(&tags).cube(), None);
        }
    }

    #[test]
    fn a_small_picture_without_tags_is_bt601() {
        let matrix = |width, height| match Colour::of(&Tags { width, height, ..HD }).layout {
            Layout::Yuv(matrix) => matrix,
            other => panic!("{other:?}"),
        };
        assert_eq!(matrix(720, 576), Matrix::Bt601);
        assert_eq!(matrix(1280, 534), Matrix::Bt709);
        assert_eq!(matrix(720, 1280), Matrix::Bt709);
    }

    #[test]
    fn a_phone_that_says_four_things_at_once_is_ordinary_bt601_of_full_range() {
        let tags = Tags {
            pixel_format: "yuvj420p",
            matrix: Some("smpte170m"),
            transfer: Some("bt2020-12"),
            primaries: Some("bt470bg"),
            full_range: true,
            ..HD
        };
        let expected = Colour { layout: Layout::Yuv(Matrix::Bt601), full: true, signal: None };
        assert_eq!(Colour::of(&tags), expected);
    }

    #[test]
    fn every_kind_of_high_dynamic_range_is_told_apart() {
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
        assert_eq!(signal(&hdr("bt709")), Some(Signal::Wide(Gamut::Bt2020)));
        let p3 = Tags { primaries: Some("smpte432"), matrix: Some("bt709"), ..HD };
        assert_eq!(signal(&p3), Some(Signal::Wide(Gamut::P3)));
    }

    #[test]
    fn the_filters_of_each_kind() {
        let kinds = [
            ("full range", Tags { full_range: true, ..HD }),
            ("BT.601", Tags { matrix: Some("bt470bg"), ..HD }),
            ("RGB", Tags { pixel_format: "gbrp", matrix: Some("gbr"), full_range: true, ..HD }),
            ("grey", Tags { pixel_format: "gray", ..HD }),
            ("PQ", hdr("smpte2084")),
            ("RGB PQ", Tags { pixel_format: "gbrp10le", ..hdr("smpte2084") }),
            ("Dolby Vision 5", Tags { dolby_vision: Some((5, 0)), ..HD }),
        ];
        let lines = kinds.map(|(kind, tags)| format!("{kind}: {}", filters(&tags).replace(TAGS, "TAGS")));
        insta::assert_snapshot!(lines.join("\n"), @r"
        full range: scale=1280:720:flags=bicubic:in_range=pc:out_range=tv,format=yuv420p,TAGS
        BT.601: scale=1280:720:flags=bicubic,format=yuv420p,colorspace=iall=bt601-6-525:irange=tv:all=bt709:range=tv:fast=1,TAGS
        RGB: scale=1280:720:flags=bicubic:out_color_matrix=bt709:out_range=tv,format=yuv420p,TAGS
        grey: scale=1280:720:flags=bicubic:in_range=pc:out_range=pc,format=yuv420p,TAGS
        PQ: scale=1280:720:flags=bicubic:in_color_matrix=bt2020:in_range=tv,format=gbrp16le,lut3d=file=t.cube,scale=flags=bicubic:out_color_matrix=bt709:out_range=tv,format=yuv420p,TAGS
        RGB PQ: scale=1280:720:flags=bicubic,format=gbrp16le,lut3d=file=t.cube,scale=flags=bicubic:out_color_matrix=bt709:out_range=tv,format=yuv420p,TAGS
        Dolby Vision 5: scale=1280:720:flags=bicubic:in_range=pc:out_range=pc,format=yuv444p16le,mergeplanes=map0p=0:map1p=1:map2p=2:format=gbrp16le,setparams=range=pc:colorspace=gbr,lut3d=file=t.cube,scale=flags=bicubic:out_color_matrix=bt709:out_range=tv,format=yuv420p,TAGS
        ");
    }
}

//! Filters that convert a source's colours to 8-bit 4:2:0 BT.709 in limited range, which every player
//! decodes, and that tag the result.

use std::fmt::Write;

use crate::plan::colour::{Colour, Matrix, PixelLayout, Signal};

use super::{framing::Framing, tone_map, wide_gamut};

/// Tags of every rung. Players assume BT.601 for small untagged video and BT.709 for large, so without tags
/// colours would differ between rungs.
pub(super) const TAGS: &str = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709";

/// The matrix's name in the filter `scale`.
fn matrix_name(matrix: Matrix) -> &'static str {
    match matrix {
        Matrix::Bt709 => "bt709",
        Matrix::Bt601 => "bt601",
        Matrix::Fcc => "fcc",
        Matrix::Smpte240m => "smpte240m",
        Matrix::Bt2020 => "bt2020",
    }
}

/// The name of a colour space with this matrix, for the filter `colorspace`.
fn colour_space(matrix: Matrix) -> Option<&'static str> {
    match matrix {
        Matrix::Bt709 => None,
        Matrix::Bt601 => Some("bt601-6-525"),
        Matrix::Fcc => Some("bt470m"),
        Matrix::Smpte240m => Some("smpte240m"),
        Matrix::Bt2020 => Some("bt2020"),
    }
}

/// The text of the lookup table for [`filters`], if the conversion needs one.
#[must_use]
pub(crate) fn cube(colour: Colour) -> Option<String> {
    match (colour.signal, colour.layout) {
        (Some(signal), _) => Some(tone_map::cube(signal)),
        (None, PixelLayout::YCgCo { deep }) => Some(ycgco(deep, colour.full)),
        (None, _) => None,
    }
}

/// The lookup table from YCgCo to full-range R'G'B' (H.273, equations 65 to 70), for planes G, B and R with
/// Y, Cg and Co. The conversion is linear, so its values at the corners of the cube are enough. Most corners
/// lie outside of R'G'B'; FFmpeg clips the result only after interpolating.
fn ycgco(deep: bool, full: bool) -> String {
    let largest = if deep { 1023.0 } else { 255.0 };
    let step = if deep { 4.0 } else { 1.0 };
    let (black, luma, chroma) =
        if full { (0.0, largest, largest) } else { (16.0 * step, 219.0 * step, 224.0 * step) };
    let mut text = "LUT_3D_SIZE 2\n".to_owned();
    for corner in 0..8_u8 {
        // Red varies fastest.
        let [co, y, cg] = [0, 1, 2].map(|plane| f64::from(corner >> plane & 1) * largest);
        let y = (y - black) / luma;
        let [cg, co] = [cg, co].map(|plane| (plane - 128.0 * step) / chroma);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:.6} {:.6} {:.6}", y - cg + co, y + cg, y - cg - co);
    }
    text
}

/// The filters that convert decoded, progressive frames to frames of a rung, joined by commas. Bars follow
/// directly after the first scaler, because only the scaler adapts to frames that change. `flags` are the
/// scaler's flags. `cube` is the path of a file with the text of [`cube`]; the path ends in `.cube` and has
/// none of FFmpeg's special characters (`:,;[]'\`).
#[must_use]
pub(super) fn filters(colour: Colour, framing: &Framing, flags: &str, cube: &str) -> String {
    let (size, bars, turn) = (framing.scale(flags), framing.bars(), framing.turn());
    // The lookup runs on 16-bit frames (`gbrp16le`), which halves its time: FFmpeg has no fast lookup for 10
    // and 12 bits.
    let lookup = format!("lut3d=file={cube}");
    let last = format!("scale=flags={flags}:out_color_matrix=bt709:out_range=tv,format=yuv420p");
    if let Some((gamut, curve)) = colour.wide {
        let rgb = match colour.layout {
            PixelLayout::Yuv(matrix) => {
                let range = if colour.full { "pc" } else { "tv" };
                format!("{size}:in_color_matrix={}:in_range={range}", matrix_name(matrix))
            }
            PixelLayout::Rgb | PixelLayout::Grey | PixelLayout::YCgCo { .. } => size,
        };
        let convert = wide_gamut::filters(gamut, curve);
        return format!("{rgb},format=gbrp16le,{bars},{convert},{last},{TAGS},{turn}");
    }
    // FFmpeg 7's scaler refuses matrices that it does not know, even if it does not use them.
    let raw = format!("setparams=range=pc:colorspace=bt709,{size}:in_range=pc:out_range=pc");
    let planes = "mergeplanes=map0p=0:map1p=1:map2p=2:format";
    match (colour.signal, colour.layout) {
        // I, P and T are moved unchanged into the planes G, B and R. The explicit ranges keep the scaler from
        // converting them. Bars are Y'CbCr's black of limited range, which is 0.02 cd/m² in I.
        (Some(Signal::DolbyVision5), _) => format!(
            "{raw},format=yuv444p16le,{bars},{planes}=gbrp16le,setparams=range=pc:colorspace=gbr,{lookup},{last},\
                 {TAGS},{turn}"
        ),
        (None, PixelLayout::YCgCo { deep }) => {
            let bits = if deep { "10le" } else { "" };
            format!(
                "{raw},format=yuv444p{bits},{bars},{planes}=gbrp{bits},setparams=range=pc:colorspace=gbr,{lookup},\
                     {last},{TAGS},{turn}"
            )
        }
        (Some(_), PixelLayout::Yuv(matrix)) => {
            let range = if colour.full { "pc" } else { "tv" };
            let matrix = matrix_name(matrix);
            format!(
                "{size}:in_color_matrix={matrix}:in_range={range},format=gbrp16le,{bars},{lookup},{last},{TAGS},{turn}"
            )
        }
        (Some(_), PixelLayout::Rgb | PixelLayout::Grey | PixelLayout::YCgCo { .. }) => {
            format!("{size},format=gbrp16le,{bars},{lookup},{last},{TAGS},{turn}")
        }
        (None, PixelLayout::Rgb) => {
            format!("{size}:out_color_matrix=bt709:out_range=tv,format=yuv420p,{bars},{TAGS},{turn}")
        }
        // The scaler ignores the tags of grey and treats it as full range.
        (None, PixelLayout::Grey) if !colour.full => {
            format!("{size}:in_range=pc:out_range=pc,format=yuv420p,{bars},{TAGS},{turn}")
        }
        (None, PixelLayout::Grey) => {
            format!("{size}:in_range=pc:out_range=tv,format=yuv420p,{bars},{TAGS},{turn}")
        }
        (None, PixelLayout::Yuv(matrix)) => {
            let range = if colour.full { ":in_range=pc:out_range=tv" } else { "" };
            // `fast` leaves the primaries unconverted. Those of BT.601 differ from BT.709's less than cameras
            // differ from each other, and converting them takes more time than scaling. The scaler is not
            // used for the matrix, because its conversion goes through 8-bit RGB.
            let matrix = colour_space(matrix).map_or_else(String::new, |space| {
                format!(",colorspace=iall={space}:irange=tv:all=bt709:range=tv:fast=1")
            });
            format!("{size}{range},format=yuv420p,{bars}{matrix},{TAGS},{turn}")
        }
    }
}

#[cfg(test)]
mod ffmpeg_tests;

#[cfg(test)]
mod tests {
    use crate::{
        analysis::orientation::Orientation,
        plan::{
            colour::{
                Tags,
                tests::{HD, hdr},
            },
            model::FrameShape,
        },
    };

    use super::*;

    /// The filters for a rung of 1280×720, without their constant parts.
    fn filters_of(tags: &Tags<'_>) -> String {
        let shape = FrameShape {
            size: (1920, 1080),
            pixel_aspect: 1.0,
            orientation: Orientation { mirrored: false, quarter_turns: 1 },
        };
        let framing = Framing::new(&shape, 720, 1280);
        filters(Colour::of(tags), &framing, "bicubic", "t.cube")
            .replace(&framing.scale("bicubic"), "SCALE")
            .replace(&framing.bars(), "BARS")
            .replace(&framing.turn(), "TURN")
            .replace(TAGS, "TAGS")
    }

    #[test]
    fn bt709_is_only_scaled() {
        let tagged = Tags { matrix: Some("bt709"), ..HD };
        for tags in [HD, tagged, Tags { matrix: Some("unknown"), ..HD }, Tags { width: 720, ..HD }] {
            assert_eq!(filters_of(&tags), "SCALE,format=yuv420p,BARS,TAGS,TURN", "{tags:?}");
            assert_eq!(cube(Colour::of(&tags)), None);
        }
    }

    #[test]
    fn filters_of_each_kind() {
        let kinds = [
            ("full range", Tags { full_range: true, ..HD }),
            ("BT.601", Tags { matrix: Some("bt470bg"), ..HD }),
            ("RGB", Tags { pixel_format: "gbrp", matrix: Some("gbr"), full_range: true, ..HD }),
            ("grey", Tags { pixel_format: "gray", ..HD }),
            ("PQ", hdr("smpte2084")),
            ("RGB PQ", Tags { pixel_format: "gbrp10le", ..hdr("smpte2084") }),
            ("P3", Tags { primaries: Some("smpte432"), transfer: Some("iec61966-2-1"), ..HD }),
            ("YCgCo", Tags { matrix: Some("ycgco"), pixel_format: "yuv420p10le", ..HD }),
            ("Dolby Vision 5", Tags { dolby_vision: Some((5, 0)), ..HD }),
        ];
        let lines = kinds.map(|(kind, tags)| format!("{kind}: {}", filters_of(&tags)));
        insta::assert_snapshot!(lines.join("\n"));
    }
}

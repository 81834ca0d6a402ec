//! Filters that convert a source's colours to 8-bit 4:2:0 BT.709 in limited range, which every player
//! decodes, and that tag the result.

use crate::plan::colour::{Colour, Matrix, PixelLayout, Signal};

use super::{framing::Framing, tone_map};

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
    colour.signal.map(tone_map::cube)
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
    match (colour.signal, colour.layout) {
        // I, P and T are moved unchanged into the planes G, B and R. The explicit ranges keep the scaler from
        // converting them. Bars are Y'CbCr's black of limited range, which is 0.02 cd/m² in I.
        (Some(Signal::DolbyVision5), _) => format!(
            "{size}:in_range=pc:out_range=pc,format=yuv444p16le,{bars},mergeplanes=map0p=0:map1p=1:map2p=2:format=gbrp16le,\
                 setparams=range=pc:colorspace=gbr,{lookup},{last},{TAGS},{turn}"
        ),
        (Some(_), PixelLayout::Yuv(matrix)) => {
            let range = if colour.full { "pc" } else { "tv" };
            let matrix = matrix_name(matrix);
            format!(
                "{size}:in_color_matrix={matrix}:in_range={range},format=gbrp16le,{bars},{lookup},{last},{TAGS},{turn}"
            )
        }
        (Some(_), PixelLayout::Rgb | PixelLayout::Grey) => {
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
            ("Dolby Vision 5", Tags { dolby_vision: Some((5, 0)), ..HD }),
        ];
        let lines = kinds.map(|(kind, tags)| format!("{kind}: {}", filters_of(&tags)));
        insta::assert_snapshot!(lines.join("\n"));
    }
}

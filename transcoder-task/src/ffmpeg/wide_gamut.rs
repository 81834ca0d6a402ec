//! Filters that convert SDR of a wide gamut to BT.709.
//!
//! Colours that BT.709 has keep their appearance: a lookup table would err at the edge of the gamut, where
//! the curves are steep. The others are clipped in linear light, where a clipped colour keeps the hue best.

use crate::plan::colour::{Curve, Gamut};

use super::primaries::{BT709, BT2020, P3, inverse, product, to_xyz};

/// The filters from full-range R'G'B' of this gamut to full-range R'G'B' of BT.709, for frames in `gbrp16le`.
/// The transfer function stays the same, so greys are unchanged.
pub(super) fn filters(gamut: Gamut, curve: Curve) -> String {
    let primaries = match gamut {
        Gamut::Bt2020 => BT2020,
        Gamut::P3 => P3,
    };
    let matrix = product(inverse(to_xyz(BT709)), to_xyz(primaries));
    let names = ["r", "g", "b"];
    let row = |(to, row): (&str, [f64; 3])| {
        let entry = |(from, entry): (&str, f64)| format!("{to}{from}={entry:.6}");
        names.into_iter().zip(row).map(entry).collect::<Vec<_>>().join(":")
    };
    let mixer = names.into_iter().zip(matrix).map(row).collect::<Vec<_>>().join(":");
    let lookup = |expression: &str| {
        let expression = format!("round(65535*({}))", expression.replace("CODE", "val/65535"));
        format!("lutrgb=r='{expression}':g='{expression}':b='{expression}'")
    };
    let (to_light, to_code) = match curve {
        Curve::Srgb => (
            "if(lte(CODE,0.04045),CODE/12.92,pow((CODE+0.055)/1.055,2.4))".to_owned(),
            "if(lte(CODE,0.0031308),CODE*12.92,1.055*pow(CODE,1/2.4)-0.055)".to_owned(),
        ),
        Curve::Power(tenths) => (format!("pow(CODE,{tenths}/10)"), format!("pow(CODE,10/{tenths})")),
    };
    format!("{},colorchannelmixer={mixer},{}", lookup(&to_light), lookup(&to_code))
}

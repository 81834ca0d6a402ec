//! Tone mapping: a lookup table from high dynamic range to SDR BT.709.
//!
//! FFmpeg's own filters (`zscale`, then `tonemap`) take over twice the CPU time, clip colours outside BT.709,
//! and cannot read Dolby Vision profile 5. A table has the same cost for any mapping.

use std::fmt::Write;

use crate::plan::colour::{PQ_PEAK, Signal, USUAL_PEAK, WHITE};

use super::primaries::{BT709, BT2020, Matrix3, Rgb, apply, inverse, product, scaled, to_xyz};

/// Points per side of the table. On a scale of 255, the lookup error of random colours is 0.6 on average (1.0
/// for profile 5), and at most 5 for 99 % of them (6 for profile 5). For greys it is at most 0.5. Twice the
/// points give a third of the error, and writing them takes eight times as long.
const POINTS: u32 = 33;
/// Gamma of an SDR display: BT.1886.
const SDR_GAMMA: f64 = 2.4;
/// Start of the tone curve's shoulder, as a share of white's PQ code: 64 cd/m², brighter than most parts of a
/// face or a room. Diffuse white maps to 84 % of SDR's signal.
const SHOULDER: f64 = 0.8;
/// Colours beyond this share of the distance from grey to the edge of BT.709 are compressed.
const KNEE: f64 = 0.8;

/// BT.2100-2, table 7: linear BT.2020 to LMS, and PQ-coded LMS to ICtCp, both times 4096.
const LMS: Matrix3 = [[1688.0, 2146.0, 262.0], [683.0, 2951.0, 462.0], [99.0, 309.0, 3688.0]];
const ICTCP: Matrix3 = [[2048.0, 2048.0, 0.0], [6610.0, -13613.0, 7003.0], [17933.0, -17390.0, -543.0]];

/// XYZ to the LMS of IPT: Hunt, Pointer and Estévez's, normalised to D65, in Ebner and Fairchild,
/// "Development and Testing of a Color Space (IPT) with Improved Hue Uniformity", 1998.
const IPT_LMS: Matrix3 = [[0.4002, 0.7076, -0.0808], [-0.2263, 1.1653, 0.0457], [0.0, 0.0, 0.9182]];
/// IPT to PQ-coded LMS, times 8192: the inverse of that paper's matrix, as in every profile 5 stream.
const IPT: Matrix3 = [[8192.0, 799.0, 1681.0], [8192.0, -933.0, 1091.0], [8192.0, 267.0, -5545.0]];
/// Removes the crosstalk of 2 % (IPTPQ"c2") from linear LMS, times 16384.
const CROSSTALK: Matrix3 = [[17081.0, -349.0, -349.0], [-349.0, 17081.0, -349.0], [-349.0, -349.0, 17081.0]];

/// The text of a `.cube` file (Adobe's "Cube LUT Specification" 1.0) of about 1 MB; red varies fastest. It
/// maps full-range R'G'B' to full-range R'G'B' of BT.709. For profile 5, FFmpeg's planes G, B and R hold I, P
/// and T.
#[must_use]
pub(super) fn cube(signal: Signal) -> String {
    let mapper = Mapper::new(signal);
    let mut text = format!("LUT_3D_SIZE {POINTS}\n");
    let at = |index: u32| f64::from(index) / f64::from(POINTS - 1);
    for blue in 0..POINTS {
        for green in 0..POINTS {
            for red in 0..POINTS {
                let [r, g, b] = mapper.map([at(red), at(green), at(blue)]);
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{r:.5} {g:.5} {b:.5}");
            }
        }
    }
    text
}

/// The mapping of one signal to BT.709, with precomputed constants.
struct Mapper {
    signal: Signal,
    to_bt2020: Matrix3,
    to_bt709: Matrix3,
    lms: Matrix3,
    bt2020_of_lms: Matrix3,
    ictcp: Matrix3,
    lms_of_ictcp: Matrix3,
    /// PQ code of the source's peak.
    peak: f64,
    /// PQ code of SDR's peak.
    white: f64,
}

impl Mapper {
    fn new(signal: Signal) -> Self {
        let bt2020 = to_xyz(BT2020);
        let from_xyz = inverse(bt2020);
        let to_bt2020 = match signal {
            Signal::Pq { .. } | Signal::Hlg => product(from_xyz, bt2020),
            Signal::DolbyVision5 => {
                product(from_xyz, product(inverse(IPT_LMS), scaled(CROSSTALK, 1.0 / 16384.0)))
            }
        };
        let peak = match signal {
            Signal::Pq { peak } => f64::from(peak),
            Signal::Hlg | Signal::DolbyVision5 => f64::from(USUAL_PEAK),
        };
        let (lms, ictcp) = (scaled(LMS, 1.0 / 4096.0), scaled(ICTCP, 1.0 / 4096.0));
        Self {
            signal,
            to_bt2020,
            to_bt709: product(inverse(to_xyz(BT709)), bt2020),
            lms,
            bt2020_of_lms: inverse(lms),
            ictcp,
            lms_of_ictcp: inverse(ictcp),
            peak: pq(peak),
            white: pq(WHITE),
        }
    }

    fn map(&self, coded: Rgb) -> Rgb {
        let light = apply(self.to_bt2020, self.light(coded)).map(|light| light.max(0.0));
        let ictcp = apply(self.ictcp, apply(self.lms, light).map(pq));
        self.gamut_mapped(self.tone_mapped(ictcp)).map(|light| light.clamp(0.0, 1.0).powf(1.0 / SDR_GAMMA))
    }

    /// Light on the display in cd/m², in the signal's own primaries.
    fn light(&self, coded: Rgb) -> Rgb {
        match self.signal {
            Signal::Pq { .. } => coded.map(nits),
            Signal::Hlg => hlg(coded),
            Signal::DolbyVision5 => ipt(coded).map(nits),
        }
    }

    /// BT.2390-10, section 5.4: applies the curve (EETF) to the intensity, and reduces the colour in
    /// proportion.
    fn tone_mapped(&self, [intensity, ct, cp]: Rgb) -> Rgb {
        let toned = self.tone_curve(intensity);
        let part =
            if intensity > 0.0 && toned > 0.0 { (toned / intensity).min(intensity / toned) } else { 0.0 };
        [toned, ct * part, cp * part]
    }

    /// Keeps dark intensities. A hyperbola (mpv's and FFmpeg's "mobius") compresses the rest below SDR's
    /// peak. BT.2390's own spline is flat at its end, so 400 and 1000 cd/m² would be the same white.
    fn tone_curve(&self, intensity: f64) -> f64 {
        let (code, peak) = (intensity / self.white, self.peak / self.white);
        if code <= SHOULDER || peak <= 1.0 {
            return code.min(1.0) * self.white;
        }
        let code = code.min(peak);
        let square = SHOULDER * SHOULDER;
        let a = -square * (peak - 1.0) / (square - 2.0 * SHOULDER + peak);
        let b = (square - 2.0 * SHOULDER * peak + peak) / (peak - 1.0);
        let scale = (b + SHOULDER).powi(2) / (b - a);
        scale * (code + a) / (code + b) * self.white
    }

    /// Returns linear BT.709 with white at 1. A colour near or beyond the gamut's edge moves towards grey of
    /// the same hue in ICtCp; clipping would turn orange into yellow. Bright colours also become darker;
    /// otherwise every flame would be white.
    fn gamut_mapped(&self, ictcp: Rgb) -> Rgb {
        let [intensity, ct, cp] = ictcp;
        let darker = 1.2 * (intensity / self.white).powi(2) * ct.hypot(cp);
        let at = |part: f64| {
            let moved = [intensity - darker * (1.0 - part), ct * part, cp * part];
            let light = apply(self.bt2020_of_lms, apply(self.lms_of_ictcp, moved).map(nits));
            apply(self.to_bt709, light).map(|light| light / WHITE)
        };
        let fits = |rgb: Rgb| rgb.iter().all(|light| (-1e-6..=1.0 + 1e-6).contains(light));
        if fits(at(1.0 / KNEE)) {
            return at(1.0);
        }
        let (mut inside, mut outside) = (0.0, 1.0 / KNEE);
        for _ in 0..16 {
            let middle = f64::midpoint(inside, outside);
            if fits(at(middle)) {
                inside = middle;
            } else {
                outside = middle;
            }
        }
        if inside == 0.0 {
            return at(0.0);
        }
        // `1.0 / inside` is the colour's distance from grey; 1 is the gamut's edge. `out` is the part beyond
        // the knee. It is compressed, so that the new distance is below 1.
        let out = (1.0 / inside - KNEE) / (1.0 - KNEE);
        let drawn_in = KNEE + (1.0 - KNEE) * out / out.hypot(1.0);
        at(drawn_in * inside)
    }
}

/// SMPTE ST 2084: cd/m² of a PQ code.
fn nits(code: f64) -> f64 {
    let root = code.clamp(0.0, 1.0).powf(32.0 / 2523.0);
    let ratio = (root - 3424.0 / 4096.0).max(0.0) / (2413.0 / 128.0 - 2392.0 / 128.0 * root);
    PQ_PEAK * ratio.powf(16384.0 / 2610.0)
}

/// SMPTE ST 2084: PQ code of cd/m².
fn pq(nits: f64) -> f64 {
    let power = (nits / PQ_PEAK).clamp(0.0, 1.0).powf(2610.0 / 16384.0);
    ((3424.0 / 4096.0 + 2413.0 / 128.0 * power) / (1.0 + 2392.0 / 128.0 * power)).powf(2523.0 / 32.0)
}

/// BT.2100-2, table 5: light in cd/m² of an HLG display with [`USUAL_PEAK`], whose system gamma is 1.2.
fn hlg(coded: Rgb) -> Rgb {
    const A: f64 = 0.178_832_77;
    const B: f64 = 0.284_668_92;
    const C: f64 = 0.559_910_73;
    let scene =
        coded.map(|code| if code <= 0.5 { code * code / 3.0 } else { (((code - C) / A).exp() + B) / 12.0 });
    let [red, green, blue] = scene;
    let luminance = 0.2627 * red + 0.6780 * green + 0.0593 * blue;
    scene.map(|light| f64::from(USUAL_PEAK) * luminance.powf(0.2) * light)
}

/// PQ-coded LMS of profile 5's planes G (I), B (P) and R (T). The reshaping in each frame's metadata is not
/// applied, so saturation may differ, but not hue.
fn ipt([t, i, p]: Rgb) -> Rgb {
    // The 10 bits are the upper bits of 16, so the largest value is just below 1, and zero is at 512.
    let [t, i, p] = [t, i, p].map(|plane| plane * 65_535.0 / f64::from(1023 << 6));
    apply(scaled(IPT, 1.0 / 8192.0), [i, p - 512.0 / 1023.0, t - 512.0 / 1023.0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signals() -> impl Strategy<Value = Signal> {
        prop_oneof![
            Just(Signal::pq(None)),
            Just(Signal::pq(Some(4000.0))),
            Just(Signal::pq(Some(203.0))),
            Just(Signal::Hlg),
            Just(Signal::DolbyVision5),
        ]
    }

    fn near(left: Rgb, right: Rgb, tolerance: f64) -> bool {
        left.iter().zip(right).all(|(left, right)| (left - right).abs() <= tolerance)
    }

    #[test]
    fn codes_match_the_standards() {
        // BT.2408-7, table 1: diffuse white in PQ and in HLG.
        assert!((pq(203.0) - 0.58).abs() < 0.002);
        assert!(near(hlg([0.75; 3]), [203.0; 3], 1.0));
        assert!(near(hlg([1.0; 3]), [1000.0; 3], 0.1));
        assert!((nits(1.0) - PQ_PEAK).abs() < 1e-6 && nits(0.0) == 0.0);
        // BT.2087-0: BT.2020 to BT.709.
        let published = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]];
        let mapper = Mapper::new(Signal::Hlg);
        assert!((0..3).all(|row| near(mapper.to_bt709[row], published[row], 1e-4)));
    }

    #[test]
    fn an_impossible_peak_is_ignored() {
        let usual = Signal::Pq { peak: USUAL_PEAK };
        for stated in [None, Some(0.1), Some(1e9), Some(f64::NAN)] {
            assert_eq!(Signal::pq(stated), usual, "{stated:?}");
        }
        assert_eq!(Signal::pq(Some(4000.0)), Signal::Pq { peak: 4000 });
    }

    #[test]
    fn a_table_has_every_point_in_order() {
        let text = cube(Signal::Hlg);
        let lines = text.lines().collect::<Vec<_>>();
        assert_eq!(lines[0], "LUT_3D_SIZE 33");
        assert_eq!(lines.len(), 1 + 33 * 33 * 33);
        assert_eq!(
            (lines[1], lines[lines.len() - 1]),
            ("0.00000 0.00000 0.00000", "1.00000 1.00000 1.00000")
        );
        let red = |line: &str| line.split(' ').next().unwrap().parse::<f64>().unwrap();
        assert!(red(lines[9]) > 0.0, "red varies fastest");
    }

    #[test]
    fn an_sdr_peak_keeps_intensities() {
        let mapper = Mapper::new(Signal::pq(Some(WHITE)));
        let shown = mapper.map([pq(100.0); 3]);
        assert!(near(shown, [(100.0 / WHITE).powf(1.0 / SDR_GAMMA); 3], 1e-3), "{shown:?}");
    }

    proptest! {
        #[test]
        fn any_code_maps_into_range(signal in signals(), r in 0.0..=1.0, g in 0.0..=1.0, b in 0.0..=1.0) {
            let shown = Mapper::new(signal).map([r, g, b]);
            prop_assert!(shown.iter().all(|light| (0.0..=1.0).contains(light)), "{shown:?}");
        }

        #[test]
        fn grey_stays_grey_and_in_order(signal in signals(), one in 0.0..=1.0_f64, other in 0.0..=1.0_f64) {
            let mapper = Mapper::new(signal);
            let zero = f64::from(512 << 6) / 65_535.0;
            let grey = |code| match signal {
                Signal::DolbyVision5 => mapper.map([zero, code, zero]),
                _ => mapper.map([code; 3]),
            };
            let (dark, light) = (grey(one.min(other)), grey(one.max(other)));
            prop_assert!(near(dark, [dark[1]; 3], 0.01), "{dark:?}");
            prop_assert!(dark[1] <= light[1] + 1e-9, "{dark:?} {light:?}");
        }

        /// A colour outside of BT.709 keeps its dominant primary.
        #[test]
        fn the_strongest_channel_stays_the_strongest(
            signal in prop_oneof![Just(Signal::pq(None)), Just(Signal::Hlg)],
            strong in 0.3..0.75_f64, weak in 0.0..0.6_f64, channel in 0_usize..3,
        ) {
            let mut coded = [strong * weak; 3];
            coded[channel] = strong;
            let shown = Mapper::new(signal).map(coded);
            prop_assert!(shown.iter().all(|light| *light <= shown[channel] + 1e-6), "{coded:?} {shown:?}");
        }
    }
}

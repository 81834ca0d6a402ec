//! Runs FFmpeg on clips of known colours and checks pixels and tags of the rung.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    ffmpeg::framing::Framing,
    fixtures::{run, stdout},
    plan::{
        colour::{Colour, Tags},
        model::FrameShape,
    },
};

/// R'G'B' of BT.709, full range, 8 bits.
type Rgb8 = [u8; 3];

/// The colours of test clips, in vertical bands from left to right.
const BANDS: [Rgb8; 8] = [
    [235, 235, 235],
    [180, 180, 180],
    [16, 16, 16],
    [191, 32, 32],
    [32, 191, 32],
    [32, 32, 191],
    [200, 150, 120],
    [90, 130, 200],
];
const BAND_WIDTH: usize = 32;
const WIDTH: usize = BANDS.len() * BAND_WIDTH;
const HEIGHT: usize = 64;
/// Largest difference in a value from 0 to 255 that storage in 8 bits and the fast scaler may cause. Decoding
/// BT.601 as BT.709 causes 20 and more.
const ROUNDING: u8 = 6;

fn ffmpeg(arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
    let quiet = ["-nostdin", "-loglevel", "error", "-y"];
    run("ffmpeg", &[&quiet, arguments].concat(), stdin).stdout
}

fn probe(path: &Path) -> Value {
    let arguments = ["-loglevel", "error", "-of", "json", "-show_streams", "-select_streams", "v"];
    let output = stdout("ffprobe", &[&arguments[..], &[path.to_str().unwrap()]].concat());
    serde_json::from_str::<Value>(&output).unwrap()["streams"][0].take()
}

/// The colour properties that the task detects in a file.
fn colour_of(path: &Path) -> Colour {
    let stream = probe(path);
    let text = |name: &str| stream[name].as_str();
    let number = |name: &str| u32::try_from(stream[name].as_u64().unwrap()).unwrap();
    let record = stream["side_data_list"]
        .as_array()
        .and_then(|list| list.iter().find(|data| data["dv_profile"].is_u64()).cloned());
    let byte = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    Colour::of(&Tags {
        pixel_format: text("pix_fmt").unwrap(),
        matrix: text("color_space"),
        transfer: text("color_transfer"),
        primaries: text("color_primaries"),
        full_range: text("color_range") == Some("pc"),
        width: number("width"),
        height: number("height"),
        dolby_vision: record
            .map(|record| (byte(&record["dv_profile"]), byte(&record["dv_bl_signal_compatibility_id"]))),
        peak: None,
    })
}

/// A clip in a temporary folder.
struct Clip {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Clip {
    /// Encodes a clip of three equal frames. `input` states the pixel format of `frame`.
    fn new(input: &[&str], frame: &[u8], encode: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mp4");
        let size = format!("{WIDTH}x{HEIGHT}");
        let raw = ["-f", "rawvideo", "-s", &size, "-r", "5"];
        let arguments = [&raw[..], input, &["-i", "pipe:0"], encode, &[path.to_str().unwrap()]].concat();
        ffmpeg(&arguments, &frame.repeat(3));
        Self { folder, path }
    }

    /// A lossless clip of [`BANDS`], converted by `filter`.
    fn of_rgb(filter: &str, encode: &[&str]) -> Self {
        let frame = frame(|band, _| band.to_vec());
        let encode = [&["-vf", filter, "-c:v", "libx264", "-qp", "0"][..], encode].concat();
        Self::new(&["-pix_fmt", "rgb24"], &frame, &encode)
    }

    /// Converts the clip to a rung, checks the rung's tags, and returns the colours of its bands.
    fn shown(&self) -> Vec<Rgb8> {
        let colour = colour_of(&self.path);
        let cube = self.folder.path().join("table.cube");
        std::fs::write(&cube, super::cube(colour).unwrap_or_default()).unwrap();
        let rung = self.folder.path().join("rung.mp4");
        let framing = Framing::new(&FrameShape::of_tests(WIDTH as u32, HEIGHT as u32), 128, 32);
        let filters = super::filters(colour, &framing, "bicubic", cube.to_str().unwrap());
        let (from, to) = (self.path.to_str().unwrap(), rung.to_str().unwrap());
        let graph = format!("[0:v:0]{filters}[v]");
        ffmpeg(
            &["-i", from, "-filter_complex", &graph, "-map", "[v]", "-c:v", "libx264", "-qp", "0", to],
            b"",
        );
        let stream = probe(&rung);
        assert_eq!(stream["pix_fmt"], "yuv420p", "{filters}");
        assert_eq!(stream["color_range"], "tv", "{filters}");
        for tag in ["color_space", "color_transfer", "color_primaries"] {
            assert_eq!(stream[tag], "bt709", "{tag} after {filters}");
        }
        let decode = "scale=flags=accurate_rnd:in_color_matrix=bt709:in_range=tv,format=rgb24";
        let pixels = ffmpeg(&["-i", to, "-frames:v", "1", "-vf", decode, "-f", "rawvideo", "pipe:1"], b"");
        let row = &pixels[16 * 128 * 3..][..128 * 3];
        (0..BANDS.len()).map(|band| row[(band * 16 + 8) * 3..][..3].try_into().unwrap()).collect()
    }
}

/// A frame of [`BANDS`] with interleaved pixels. `pixel` converts a colour at a column to bytes.
fn frame(pixel: impl Fn(Rgb8, usize) -> Vec<u8>) -> Vec<u8> {
    let row = (0..WIDTH).flat_map(|x| pixel(BANDS[x / BAND_WIDTH], x)).collect::<Vec<_>>();
    row.repeat(HEIGHT)
}

fn assert_near(shown: &[Rgb8], expected: &[Rgb8], tolerance: u8) {
    for (shown, expected) in shown.iter().zip(expected) {
        let far = shown.iter().zip(expected).any(|(a, b)| a.abs_diff(*b) > tolerance);
        assert!(!far, "{shown:?} instead of {expected:?}");
    }
}

#[test]
fn sdr_keeps_its_colours_in_every_storage_format() {
    let bt601 = "scale=out_color_matrix=bt601:out_range=";
    let bt709 = "scale=out_color_matrix=bt709:out_range=";
    let tag = |matrix, range| ["-colorspace", matrix, "-color_range", range];
    for (filter, tags) in [
        (format!("{bt709}tv,format=yuv420p"), tag("bt709", "tv")),
        (format!("{bt709}pc,format=yuvj420p"), tag("bt709", "pc")),
        (format!("{bt709}tv,format=yuv444p10le"), tag("bt709", "tv")),
        (format!("{bt709}tv,format=yuv422p"), tag("bt709", "tv")),
        (format!("{bt601}tv,format=yuv420p"), tag("smpte170m", "tv")),
        (format!("{bt601}pc,format=yuvj420p"), tag("bt470bg", "pc")),
        (format!("{bt601}tv,format=yuv420p10le"), tag("bt470bg", "tv")),
        // Video of this size is decoded as BT.601 if it has no tags.
        (format!("{bt601}tv,format=yuv420p"), tag("unknown", "unknown")),
        (format!("{bt709}pc,format=yuv420p10le"), tag("bt709", "pc")),
        (format!("{bt601}pc,format=yuvj444p"), tag("smpte170m", "pc")),
        ("scale=out_color_matrix=smpte240m:out_range=tv,format=yuv420p".into(), tag("smpte240m", "tv")),
        ("scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p".into(), tag("bt2020nc", "tv")),
    ] {
        assert_near(&Clip::of_rgb(&filter, &tags).shown(), &BANDS, ROUNDING);
    }
}

#[test]
fn rgb_inside_h264_becomes_bt709() {
    let encode = ["-c:v", "libx264rgb", "-pix_fmt", "rgb24"];
    assert_near(&Clip::of_rgb("null", &encode).shown(), &BANDS, ROUNDING);
}

#[test]
fn grey_keeps_its_levels() {
    let grey = BANDS.map(|[r, g, b]| {
        let luma = 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b);
        [luma.round() as u8; 3]
    });
    for (range, filter) in [
        ("tv", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,extractplanes=y"),
        ("pc", "scale=out_color_matrix=bt709:out_range=pc,format=yuvj420p,extractplanes=y"),
    ] {
        let clip = Clip::of_rgb(filter, &["-color_range", range, "-colorspace", "bt709"]);
        assert_near(&clip.shown(), &grey, ROUNDING);
    }
}

type Matrix3 = [[f64; 3]; 3];

/// BT.2087-0: linear BT.709 to BT.2020.
const BT2020_OF_709: Matrix3 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]];

fn apply(matrix: Matrix3, vector: [f64; 3]) -> [f64; 3] {
    matrix.map(|row| row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2])
}

/// Light of an SDR display whose white is at 203 cd/m², in BT.2020.
fn light(rgb: Rgb8) -> [f64; 3] {
    apply(BT2020_OF_709, rgb.map(|code| 203.0 * (f64::from(code) / 255.0).powf(2.4)))
}

/// SMPTE ST 2084: PQ code of cd/m².
fn pq(nits: f64) -> f64 {
    let power = (nits / 10_000.0).powf(0.159_301_758);
    ((0.835_937_5 + 18.851_562_5 * power) / (1.0 + 18.6875 * power)).powf(78.84375)
}

/// BT.2100's HLG for a display of 1000 cd/m².
fn hlg(light: [f64; 3]) -> [f64; 3] {
    let light = light.map(|light| light / 1000.0);
    let luminance = 0.2627 * light[0] + 0.6780 * light[1] + 0.0593 * light[2];
    light.map(|light| {
        let scene = light * luminance.powf(1.0 / 1.2 - 1.0);
        if scene <= 1.0 / 12.0 {
            (3.0 * scene).sqrt()
        } else {
            0.178_832_77 * (12.0 * scene - 0.284_668_92).ln() + 0.559_910_73
        }
    })
}

/// Limited-range 10-bit Y'CbCr of BT.2020.
fn yuv([r, g, b]: [f64; 3]) -> [u16; 3] {
    let luma = 0.2627 * r + 0.6780 * g + 0.0593 * b;
    let chroma = |part: f64| (512.0 + 896.0 * part).round() as u16;
    [(64.0 + 876.0 * luma).round() as u16, chroma((b - luma) / 1.8814), chroma((r - luma) / 1.4746)]
}

/// Full-range 10-bit IPTPQc2 by the published formulas: IPT of Ebner and Fairchild with 2 % crosstalk.
fn ipt(light: [f64; 3]) -> [u16; 3] {
    const XYZ: Matrix3 = [[0.6370, 0.1446, 0.1689], [0.2627, 0.6780, 0.0593], [0.0, 0.0281, 1.0610]];
    const LMS: Matrix3 = [[0.4002, 0.7076, -0.0808], [-0.2263, 1.1653, 0.0457], [0.0, 0.0, 0.9182]];
    const CROSSTALK: Matrix3 = [[0.96, 0.02, 0.02], [0.02, 0.96, 0.02], [0.02, 0.02, 0.96]];
    const IPT: Matrix3 = [[0.4, 0.4, 0.2], [4.455, -4.851, 0.396], [0.8056, 0.3572, -1.1628]];
    let lms = apply(CROSSTALK, apply(LMS, apply(XYZ, light))).map(pq);
    let [i, p, t] = apply(IPT, lms);
    [i, p + 512.0 / 1023.0, t + 512.0 / 1023.0].map(|plane| (1023.0 * plane).round() as u16)
}

/// Colours that tone mapping keeps: none above 64 cd/m², none near the edge of BT.709.
const DIM: [Rgb8; 8] = [
    [150, 150, 150],
    [100, 100, 100],
    [20, 20, 20],
    [120, 60, 60],
    [60, 120, 70],
    [60, 60, 130],
    [150, 110, 90],
    [60, 110, 140],
];

/// A planar 4:2:0 frame of the bands, with 10-bit samples in 16-bit words.
fn planes(bands: [[u16; 3]; 8]) -> Vec<u8> {
    let plane = |plane: usize, shrunk: usize| {
        let row = bands.iter().flat_map(move |band| vec![band[plane]; BAND_WIDTH / shrunk]);
        row.flat_map(u16::to_le_bytes).collect::<Vec<_>>().repeat(HEIGHT / shrunk)
    };
    [plane(0, 1), plane(1, 2), plane(2, 2)].concat()
}

/// A 10-bit HEVC clip; `parameters` are x265's.
fn hevc(bands: [[u16; 3]; 8], parameters: &str) -> Clip {
    let parameters = format!("lossless=1:log-level=error:{parameters}");
    let encode = ["-c:v", "libx265", "-x265-params", &parameters];
    Clip::new(&["-pix_fmt", "yuv420p10le"], &planes(bands), &encode)
}

const PQ: &str = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited";
const HLG: &str = "colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc:range=limited";

#[test]
fn colours_within_sdr_survive_pq_and_hlg() {
    let pq = hevc(DIM.map(|rgb| yuv(light(rgb).map(pq))), PQ);
    assert_near(&pq.shown(), &DIM, ROUNDING);
    let hlg = hevc(DIM.map(|rgb| yuv(hlg(light(rgb)))), HLG);
    assert_near(&hlg.shown(), &DIM, ROUNDING);
}

#[test]
fn sdr_in_bt2020_becomes_bt709() {
    let coded = |rgb| yuv(light(rgb).map(|light| (light / 203.0).powf(1.0 / 2.4)));
    let clip = hevc(DIM.map(coded), "colorprim=bt2020:transfer=bt2020-10:colormatrix=bt2020nc");
    assert_near(&clip.shown(), &DIM, ROUNDING);
}

/// BT.709's own corners, and ordinary colours.
const SATURATED: [Rgb8; 8] = [
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [255, 255, 0],
    [0, 255, 255],
    [255, 0, 255],
    [255, 255, 255],
    [200, 150, 120],
];

/// A lossless 4:4:4 clip of bands with planes of 8 or 10 bits.
fn planes_444(bands: [[f64; 3]; 8], deep: bool, parameters: &str) -> Clip {
    let plane = |plane: usize| {
        let row = bands.iter().flat_map(move |band| [band[plane].round() as u16; BAND_WIDTH]);
        let bytes = row.flat_map(|value| {
            let [low, high] = value.to_le_bytes();
            if deep { vec![low, high] } else { vec![low] }
        });
        bytes.collect::<Vec<_>>().repeat(HEIGHT)
    };
    let format = if deep { "yuv444p10le" } else { "yuv444p" };
    let encode = ["-c:v", "libx264", "-qp", "0", "-x264-params", parameters];
    Clip::new(&["-pix_fmt", format], &[plane(0), plane(1), plane(2)].concat(), &encode)
}

#[test]
fn colours_within_bt709_survive_a_wide_gamut() {
    // Linear BT.709 to Display P3: SMPTE RP 177 with the primaries of both.
    const P3_OF_709: Matrix3 = [[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]];
    let srgb_light =
        |code: f64| if code <= 0.04045 { code / 12.92 } else { ((code + 0.055) / 1.055).powf(2.4) };
    let srgb_code =
        |light: f64| if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    let coded = |rgb: Rgb8, matrix: Matrix3, light: &dyn Fn(f64) -> f64, code: &dyn Fn(f64) -> f64| {
        apply(matrix, rgb.map(|value| light(f64::from(value) / 255.0)))
            .map(|light| code(light.clamp(0.0, 1.0)))
    };
    // Limited-range 10-bit Y'CbCr.
    let yuv = |[r, g, b]: [f64; 3], kr: f64, kb: f64| {
        let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (cb, cr) = ((b - luma) / (2.0 - 2.0 * kb), (r - luma) / (2.0 - 2.0 * kr));
        [64.0 + 876.0 * luma, 512.0 + 896.0 * cb, 512.0 + 896.0 * cr]
    };
    let p3 = SATURATED.map(|rgb| yuv(coded(rgb, P3_OF_709, &srgb_light, &srgb_code), 0.2126, 0.0722));
    let p3 = planes_444(p3, true, "colorprim=smpte432:transfer=iec61966-2-1:colormatrix=bt709");
    assert_near(&p3.shown(), &SATURATED, ROUNDING);
    let (light, code) = (|code: f64| code.powf(2.4), |light: f64| light.powf(1.0 / 2.4));
    let bt2020 = SATURATED.map(|rgb| yuv(coded(rgb, BT2020_OF_709, &light, &code), 0.2627, 0.0593));
    let bt2020 = planes_444(bt2020, true, "colorprim=bt2020:transfer=bt2020-10:colormatrix=bt2020nc");
    // A pure power function turns the rounding of other channels into a visible code near black, but not into
    // visible light.
    assert_near(&bt2020.shown(), &SATURATED, 2 * ROUNDING);
}

#[test]
fn ycgco_keeps_its_colours() {
    for (deep, full) in [(false, true), (false, false), (true, true), (true, false)] {
        let step = if deep { 4.0 } else { 1.0 };
        let largest = if deep { 1023.0 } else { 255.0 };
        let (black, luma, chroma) =
            if full { (0.0, largest, largest) } else { (16.0 * step, 219.0 * step, 224.0 * step) };
        let bands = SATURATED.map(|rgb| {
            let [r, g, b] = rgb.map(|value| f64::from(value) / 255.0);
            let (y, cg, co) = (0.5 * g + 0.25 * (r + b), 0.5 * g - 0.25 * (r + b), 0.5 * (r - b));
            let chroma = |value: f64| (128.0 * step + chroma * value).min(largest);
            [black + luma * y, chroma(cg), chroma(co)]
        });
        let range = if full { "on" } else { "off" };
        let parameters = format!("colormatrix=YCgCo:colorprim=bt709:transfer=iec61966-2-1:fullrange={range}");
        assert_near(&planes_444(bands, deep, &parameters).shown(), &SATURATED, ROUNDING);
    }
}

#[test]
fn highlights_stay_grey_and_distinct() {
    let levels = [0.0, 5.0, 50.0, 100.0, 203.0, 400.0, 700.0, 1000.0];
    let shown = hevc(levels.map(|nits| yuv([pq(nits); 3])), PQ).shown();
    for [red, green, blue] in &shown {
        assert!(red.abs_diff(*green) <= 3 && blue.abs_diff(*green) <= 3, "{shown:?}");
    }
    let steps = shown.windows(2).map(|pair| i32::from(pair[1][1]) - i32::from(pair[0][1]));
    assert!(steps.min() >= Some(6), "{shown:?}");
    assert!((205..225).contains(&shown[4][1]) && shown[7][1] >= 252, "{shown:?}");
}

#[test]
fn dolby_vision_profile_5_is_neither_green_nor_purple() {
    let clip = hevc(DIM.map(|rgb| ipt(light(rgb))), "range=full");
    add_dolby_vision(&clip.path, 5, 0);
    assert!(super::cube(colour_of(&clip.path)).is_some());
    assert_near(&clip.shown(), &DIM, ROUNDING);
}

/// Adds a `dvcC` box ("Dolby Vision Streams within the ISO Base Media File Format", 2.1.2) to the sample
/// entry. `moov` follows the samples, so no chunk offset changes.
fn add_dolby_vision(path: &Path, profile: u8, compatibility: u8) {
    let mut file = std::fs::read(path).unwrap();
    let mut record = [&32_u32.to_be_bytes()[..], b"dvcC"].concat();
    record.extend([1, 0, profile << 1, (3 << 3) | 0b101, compatibility << 4]);
    record.resize(32, 0);
    let (mut start, mut end) = (0, file.len());
    for (name, header) in
        [(b"moov", 8), (b"trak", 8), (b"mdia", 8), (b"minf", 8), (b"stbl", 8), (b"stsd", 16), (b"hev1", 86)]
    {
        let size = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        let mut at = start;
        while &file[at + 4..at + 8] != name {
            at += size(at) as usize;
            assert!(at < end, "no {name:?}");
        }
        let larger = size(at) + 32;
        (start, end) = (at + header, at + size(at) as usize);
        file[at..at + 4].copy_from_slice(&larger.to_be_bytes());
    }
    file.splice(end..end, record);
    std::fs::write(path, file).unwrap();
}

//! Runs FFmpeg on clips whose frames change, with a graph that is never rebuilt.

use tempfile::TempDir;

use super::*;
use crate::{
    analysis::ffprobe::probe,
    config::profile::Profile,
    ffmpeg::colour,
    fixtures::{ffmpeg, run},
    plan::{copyable::Copyable, model::Plan},
    source::loopback::Input,
};

/// Joins MPEG-TS clips of these sizes, pixel formats and colours into an MP4 file with the parameter sets of
/// the first one. Each lasts five frames.
fn changing(folder: &TempDir, parts: &[(&str, &str, &str)]) -> String {
    let mut joined = Vec::new();
    for (index, (size, format, colour)) in parts.iter().enumerate() {
        let part = folder.path().join(format!("{index}.ts"));
        let source = format!("color={colour}:size={size}:rate=25:duration=0.2");
        let encode = format!("-c:v libx264 -preset ultrafast -qp 10 -bf 0 -pix_fmt {format}");
        ffmpeg(&format!("-f lavfi -i {source} {encode} {}", part.display()));
        joined.push(part.display().to_string());
    }
    let clip = folder.path().join("changing.mp4");
    ffmpeg(&format!("-i concat:{} -c copy {}", joined.join("|"), clip.display()));
    clip.display().to_string()
}

/// The frames of a clip after the filters, as RGB.
fn frames(clip: &str, filters: &str, size: (usize, usize)) -> Vec<Vec<u8>> {
    frames_decoded_by(&[], clip, filters, size)
}

fn frames_decoded_by(
    decoder: &[&str],
    clip: &str,
    filters: &str,
    (width, height): (usize, usize),
) -> Vec<Vec<u8>> {
    let graph = format!("[0:v:0]{filters},format=rgb24[v]");
    let arguments = ["-nostdin", "-loglevel", "error", "-reinit_filter:v", "0", "-noautorotate"];
    let input = ["-i", clip];
    let output =
        ["-filter_complex", &graph, "-map", "[v]", "-fps_mode", "passthrough", "-f", "rawvideo", "-"];
    let bytes = run("ffmpeg", &[&arguments[..], decoder, &input, &output].concat(), b"").stdout;
    assert_eq!(bytes.len() % (width * height * 3), 0);
    bytes.chunks(width * height * 3).map(<[u8]>::to_vec).collect()
}

/// Columns and rows of a frame that are not black: first and last.
fn extent(frame: &[u8], width: usize) -> [usize; 4] {
    let lit = |(index, pixel): (usize, &[u8])| {
        pixel.iter().any(|value| *value > 40).then_some((index % width, index / width))
    };
    let lit: Vec<_> = frame.chunks(3).enumerate().filter_map(lit).collect();
    let columns = || lit.iter().map(|(column, _)| *column);
    let rows = || lit.iter().map(|(_, row)| *row);
    [columns().min(), columns().max(), rows().min(), rows().max()].map(Option::unwrap)
}

const TAGS: &str = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709";

fn fit(framing: &Framing) -> String {
    format!("{},format=yuv420p,{},{TAGS},{}", framing.scale("bicubic"), framing.bars(), framing.turn())
}

#[test]
fn frames_of_any_size_shape_and_format_are_fitted_with_bars() {
    let folder = tempfile::tempdir().unwrap();
    let clip = changing(
        &folder,
        &[
            ("160x120", "yuv420p", "red"),
            ("120x160", "yuv420p", "red"),
            ("320x240", "yuv444p", "red"),
            ("320x180", "yuv420p10le", "red"),
            ("322x240", "yuv422p", "red"),
            ("16x16", "yuv420p", "red"),
        ],
    );
    let framing = Framing::new(&FrameShape::of_tests(160, 120), 160, 120);
    let shown = frames(&clip, &fit(&framing), (160, 120));
    assert_eq!(shown.len(), 30);
    let whole = [0, 159, 0, 119];
    let expected = [whole, [35, 124, 0, 119], whole, [0, 159, 15, 104], whole, [20, 139, 0, 119]];
    for (number, frame) in shown.iter().enumerate() {
        let extent = extent(frame, 160);
        // Subsampled chroma moves an edge by a pixel.
        let near = extent.iter().zip(expected[number / 5]).all(|(at, expected)| at.abs_diff(expected) <= 1);
        assert!(near, "frame {number}: {extent:?}");
    }
}

#[test]
fn frames_that_fill_the_picture_are_only_scaled() {
    let folder = tempfile::tempdir().unwrap();
    // 426 to 240 is not exactly 16:9, and the rung's 854 to 480 is another rounding of it.
    let clip = folder.path().join("clip.mp4").display().to_string();
    let source = "-f lavfi -i testsrc2=size=426x240:rate=5:duration=1,setsar=4/3";
    ffmpeg(&format!("{source} -c:v libx264 -preset ultrafast -pix_fmt yuv420p {clip}"));
    let shape = FrameShape { pixel_aspect: 4.0 / 3.0, ..FrameShape::of_tests(426, 240) };
    let framed = frames(&clip, &fit(&Framing::new(&shape, 570, 240)), (570, 240));
    let scaled = format!("scale=570:240:flags=bicubic,format=yuv420p,{TAGS},setsar=1");
    assert!(framed == frames(&clip, &scaled, (570, 240)));
}

#[test]
fn transparent_parts_are_black() {
    let folder = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i color=red:size=160x120:rate=5:duration=0.4";
    let alpha = "geq=lum=lum(X\\,Y):cb=cb(X\\,Y):cr=cr(X\\,Y):a=if(lt(X\\,80)\\,LARGEST\\,0)";
    for (name, format, largest, encode) in [
        ("prores.mov", "yuva444p10le", "1023", "-c:v prores_ks -profile:v 4"),
        ("qtrle.mov", "yuva444p", "255", "-c:v qtrle -pix_fmt argb"),
        ("png.mkv", "yuva444p", "255", "-c:v png -pix_fmt rgba"),
        ("vp8.webm", "yuva420p", "255", "-c:v libvpx -auto-alt-ref 0 -b:v 1M"),
        ("vp9.webm", "yuva420p", "255", "-c:v libvpx-vp9 -auto-alt-ref 0 -b:v 1M"),
    ] {
        let clip = folder.path().join(name).display().to_string();
        let alpha = alpha.replace("LARGEST", largest);
        ffmpeg(&format!("{source} -vf format={format},{alpha} {encode} {clip}"));
        let media =
            tokio::runtime::Runtime::new().unwrap().block_on(probe(&Input::File(clip.clone().into())));
        let plan = Plan::new(&media.unwrap(), &Copyable::default(), &Profile::default());
        let picture = plan.picture.unwrap();
        let preparation = preparation(&picture, "bwdif=deint=interlaced", "bicubic").unwrap();
        let framing = Framing::new(&picture.shape, 160, 120);
        let filters = format!("{preparation},{}", colour::filters(picture.colour, &framing, "bicubic", ""));
        let decoder = picture.decoder.map_or_else(Vec::new, |decoder| vec!["-c:0", decoder]);
        let shown = frames_decoded_by(&decoder, &clip, &filters, (160, 120)).remove(0);
        let [left, right, top, bottom] = extent(&shown, 160);
        assert!((left, top, bottom) == (0, 0, 119) && right.abs_diff(79) <= 2, "{name}: {right}");
        let pixel = &shown[(60 * 160 + 40) * 3..][..3];
        assert!(pixel[0] > 235 && pixel[1].max(pixel[2]) < 40, "{name}: {pixel:?}");
    }
}

#[test]
fn deinterlacers_survive_frames_that_change() {
    let folder = tempfile::tempdir().unwrap();
    let parts = [("160x120", "yuv420p", "red"), ("120x160", "yuv444p", "red"), ("320x240", "yuv420p", "red")];
    let clip = changing(&folder, &parts);
    let shape = FrameShape::of_tests(320, 240);
    let fit = fit(&Framing::new(&shape, 160, 120));
    for deinterlacer in ["bwdif=mode=send_frame:deint=all", "estdif=mode=frame:deint=all"] {
        let filters = format!("{},{deinterlacer},{fit}", uniform(&shape, None, "bicubic"));
        let shown = frames(&clip, &filters, (160, 120));
        assert_eq!(shown.len(), 15, "{deinterlacer}");
        let [left, right, top, bottom] = extent(&shown[7], 160);
        assert!(left.abs_diff(35) <= 1 && right.abs_diff(124) <= 1, "{deinterlacer}: {left} {right}");
        assert_eq!((top, bottom), (0, 119), "{deinterlacer}");
    }
}

/// The corners of a picture, from top left in reading order: red, green, blue, white.
#[test]
fn orientations_in_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mkv").display().to_string();
    let [red, green, blue, white] = ["red", "lime", "blue", "white"]
        .map(|colour| format!("color={colour}:size=64x32:duration=0.1[{colour}]"));
    let stack = "[red][lime]hstack[t];[blue][white]hstack[b];[t][b]vstack";
    run(
        "ffmpeg",
        &[
            "-nostdin",
            "-loglevel",
            "error",
            "-filter_complex",
            &format!("{red};{green};{blue};{white};{stack}"),
            "-c:v",
            "ffv1",
            "-pix_fmt",
            "yuv444p",
            &clip,
        ],
        b"",
    );
    let corners = |mirrored: bool, quarter_turns: u8| -> String {
        let orientation = Orientation { mirrored, quarter_turns };
        let shape = FrameShape { orientation, ..FrameShape::of_tests(128, 64) };
        let (width, height) = if orientation.swaps_sides() { (64, 128) } else { (128, 64) };
        let framing = Framing::new(&shape, width as u32, height as u32);
        let frame = frames(&clip, &fit(&framing), (width, height)).remove(0);
        let name = |(x, y): (usize, usize)| match frame[(y * width + x) * 3..][..3]
            .iter()
            .map(|v| v / 128)
            .collect::<Vec<_>>()[..]
        {
            [1, 0, 0] => 'R',
            [0, 1, 0] => 'G',
            [0, 0, 1] => 'B',
            [1, 1, 1] => 'W',
            ref other => panic!("{other:?}"),
        };
        let (right, bottom) = (width - 8, height - 8);
        [(8, 8), (right, 8), (8, bottom), (right, bottom)].map(name).iter().collect()
    };
    assert_eq!([0, 1, 2, 3].map(|turns| corners(false, turns)), ["RGBW", "BRWG", "WBGR", "GWRB"]);
    assert_eq!([0, 1, 2, 3].map(|turns| corners(true, turns)), ["GRWB", "WGBR", "BWRG", "RBGW"]);
}

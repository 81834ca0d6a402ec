//! A look at frames in several places of the source, before the plan.
//!
//! A header describes the first frames. Later frames may be larger, have another shape, or consist of two
//! fields: the phone was turned, a call got more bandwidth, recordings were joined. The ladder needs the
//! largest frames. The look is a sample: keyframes in a small file, and a few places in a large one. Frames
//! that it misses are fitted into the plan's shape, and a deinterlacer takes care of fields wherever the
//! codec allows them.

use super::{
    ffprobe_json::{Extradata, Frame},
    h264::{is_progressive, sequence_parameter_sets},
    limits::SMALL_FILE,
    media::Video,
};

/// Places in a large file. Each costs a seek: a tenth of a second in S3.
const PLACES: u32 = 8;
/// Places in a small file whose codec cannot skip frames between keyframes, or that is long.
const PLACES_IN_SMALL_FILE: u32 = 32;
/// Most packets of a small file that are read one after the other: five minutes at 30 frames per second.
const MOST_PACKETS: u32 = 10_000;
/// Packets that are read from the beginning of a large file of unknown duration, which has no index either.
const PACKETS_WITHOUT_INDEX: u32 = 1_000;

/// ffprobe's read intervals for a look at a track of this codec. All times are on the file's clock.
#[must_use]
pub(super) fn intervals(codec: &str, file_size: u64, start_seconds: f64, duration_seconds: f64) -> String {
    // The decoders of other codecs decode all frames.
    let skips = matches!(codec, "h264" | "hevc" | "vp8" | "mpeg2video" | "mpeg4");
    let small = file_size <= SMALL_FILE;
    let beginning = match (small, skips, duration_seconds > 0.0) {
        (true, true, _) => MOST_PACKETS,
        (_, true, false) => PACKETS_WITHOUT_INDEX,
        _ => 1,
    };
    let places = if small { PLACES_IN_SMALL_FILE } else { PLACES };
    let places = if duration_seconds > 0.0 { 1..places } else { 1..1 };
    let count = f64::from(places.end);
    let later = places.map(|place| {
        let at = start_seconds + duration_seconds * f64::from(place) / count;
        format!(",{at:.3}%+#1")
    });
    std::iter::once(format!("%+#{beginning}")).chain(later).collect()
}

/// Corrects the track's properties by the frames that were seen.
pub(super) fn apply(video: &mut Video, frames: &[Frame], extradata: Option<&Extradata>) {
    let area = |(width, height, aspect): (u32, u32, f64)| f64::from(width) * f64::from(height) * aspect;
    let first = (video.width, video.height, video.pixel_aspect);
    let mut largest = first;
    for frame in frames.iter().filter(|frame| frame.width > 0 && frame.height > 0) {
        let size = (frame.width, frame.height, frame.pixel_aspect().unwrap_or(video.pixel_aspect));
        video.changes |= size != first;
        // A size that differs by rounding must not replace an earlier one.
        if area(size) > area(largest) * 1.001 {
            largest = size;
        }
    }
    (video.width, video.height, video.pixel_aspect) = largest;
    let fields = match video.codec.as_str() {
        // Every H.264 stream may have fields unless its parameter sets exclude it.
        "h264" => !extradata.is_some_and(|extradata| {
            let sets = sequence_parameter_sets(&extradata.bytes());
            !sets.is_empty() && sets.iter().all(|set| is_progressive(set) == Some(true))
        }),
        _ => false,
    };
    video.interlaced |= fields || frames.iter().any(|frame| frame.interlaced_frame != 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::ffprobe::{look, probe},
        fixtures::clip,
        source::loopback::Input,
    };

    fn video(codec: &str) -> Video {
        Video { codec: codec.into(), width: 640, height: 480, pixel_aspect: 1.0, ..Video::default() }
    }

    fn frame(width: u32, height: u32, aspect: &str) -> Frame {
        Frame { width, height, sample_aspect_ratio: Some(aspect.into()), interlaced_frame: 0 }
    }

    #[test]
    fn small_files_are_read_by_keyframes_and_large_ones_in_places() {
        let small = intervals("vp8", SMALL_FILE, 100.0, 320.0);
        assert!(small.starts_with("%+#10000,110.000%+#1,120.000%+#1,"), "{small}");
        assert_eq!(small.split(',').count(), 32);
        assert!(intervals("vp9", SMALL_FILE, 0.0, 320.0).starts_with("%+#1,10.000%+#1,"));
        assert_eq!(
            intervals("h264", SMALL_FILE + 1, 0.0, 8.0),
            "%+#1,1.000%+#1,2.000%+#1,3.000%+#1,4.000%+#1,5.000%+#1,6.000%+#1,7.000%+#1"
        );
        assert_eq!(intervals("vp8", SMALL_FILE + 1, 0.0, 0.0), "%+#1000");
        assert_eq!(intervals("vp9", 0, 0.0, 0.0), "%+#1");
    }

    #[test]
    fn the_first_of_the_largest_frames_counts() {
        let largest = |frames: &[Frame]| {
            let mut video = video("vp8");
            apply(&mut video, frames, None);
            (video.width, video.height, video.pixel_aspect, video.changes)
        };
        assert_eq!(largest(&[]), (640, 480, 1.0, false));
        assert_eq!(largest(&[frame(640, 480, "1:1"), frame(640, 480, "N/A")]), (640, 480, 1.0, false));
        assert_eq!(largest(&[frame(640, 480, "1:1"), frame(480, 640, "1:1")]), (640, 480, 1.0, true));
        assert_eq!(largest(&[frame(320, 180, "1:1"), frame(1280, 720, "1:1")]), (1280, 720, 1.0, true));
        let (.., aspect, changes) = largest(&[frame(640, 480, "4:3")]);
        assert!((aspect - 4.0 / 3.0).abs() < 1e-9 && changes);
        assert_eq!(largest(&[frame(0, 0, "")]), (640, 480, 1.0, false));
    }

    #[test]
    fn fields_are_expected_unless_the_codec_excludes_them() {
        let interlaced = |codec: &str, frames: &[Frame], dump: Option<&str>| {
            let mut video = video(codec);
            let extradata = dump.map(|dump| serde_json::from_value(dump.into()).unwrap());
            apply(&mut video, frames, extradata.as_ref());
            video.interlaced
        };
        let fields = Frame { interlaced_frame: 1, ..frame(640, 480, "1:1") };
        assert!(!interlaced("vp8", &[], None));
        assert!(interlaced("ffv1", &[frame(640, 480, "1:1"), fields], None));
        assert!(interlaced("h264", &[], None), "unknown");
        // ffprobe's dumps of x264's configurations: progressive, and with fake-interlaced=1.
        let progressive = "\n00000000: 0164 000a ffe1 0018 6764 000a acd9 420d  .d......gd....B.\n\
            00000010: b011 0000 0300 0100 0003 0032 0f12 2596  ...........2..%.\n\
            00000020: 0100 0668 ebe3 cb22 c0fd f8f8 00         ...h...\".....\n";
        let fields = "\n00000000: 0164 0015 ffe1 0018 6764 0015 acd9 4219  .d......gd....B.\n\
            00000010: 6022 0000 0300 0200 0003 0064 1e2c 5b2c  `\".........d.,[,\n\
            00000020: 0100 0668 ebe3 cb22 c0fd f8f8 00         ...h...\".....\n";
        assert!(!interlaced("h264", &[], Some(progressive)));
        assert!(interlaced("h264", &[], Some(fields)));
        assert!(interlaced("h264", &[], Some(progressive.split_at(60).0)), "cut off");
    }

    /// The track of a Matroska file of two recordings that x264 encodes with these options.
    async fn looked_at(first: &str, second: &str) -> Video {
        let folder = tempfile::tempdir().unwrap();
        let parts = [("first.ts", first), ("second.ts", second)].map(|(name, options)| {
            let source = "-f lavfi -i testsrc2=rate=25:duration=1 -pix_fmt yuv420p -c:v libx264";
            clip(&folder, name, &format!("{source} {options}")).display().to_string()
        });
        let file = clip(&folder, "joined.mkv", &format!("-i concat:{} -c copy", parts.join("|")));
        let input = Input::File(file);
        let mut media = probe(&input).await.unwrap();
        look(&input, &mut media, None).await.unwrap();
        media.video.unwrap()
    }

    #[tokio::test]
    async fn later_frames_are_seen() {
        let small = "-vf scale=160:96";
        let video = looked_at(small, small).await;
        assert_eq!((video.width, video.height, video.changes, video.interlaced), (160, 96, false, false));
        let video = looked_at(small, "-vf scale=96:240").await;
        assert_eq!((video.width, video.height, video.changes), (96, 240, true));
        let video = looked_at(small, "-vf scale=160:96 -flags +ildct+ilme").await;
        assert!(video.interlaced);
    }
}

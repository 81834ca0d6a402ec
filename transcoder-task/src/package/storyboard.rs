//! Poster, and storyboard for the player's seek bar. Both are made from [`Stills`].

use std::time::Duration;

use bytes::Bytes;

use crate::process::{self, FfmpegError};

use super::{stills::Stills, webvtt::timestamp};

/// Weight of the first and last stills in the choice of the poster. They often show titles, credits and
/// fades.
const EDGE_WEIGHT: f64 = 0.75;
/// Tiles per row of the storyboard.
const COLUMNS: usize = 10;
/// Longer side of a tile in pixels, as players show it above the seek bar.
const TILE: f64 = 160.0;
/// Time limit of the storyboard, which takes FFmpeg about a second.
const STORYBOARD_LIMIT: Duration = Duration::from_secs(60);
/// File name of the sheet, next to the storyboard's cues.
pub(crate) const SHEET_NAME: &str = "storyboard-0.jpg";

impl Stills {
    /// The most representative still, if there is one: the largest JPEG, because black, blank and blurred
    /// frames are small. The first and last stills are chosen only if they are clearly larger than the
    /// others.
    #[must_use]
    pub(crate) fn poster(&self) -> Option<Bytes> {
        let count = self.jpegs.len();
        let edge = (count / 20).max(1);
        let score = |number: usize, jpeg: &Bytes| {
            let weight = if number < edge || number + edge >= count { EDGE_WEIGHT } else { 1.0 };
            jpeg.len() as f64 * weight
        };
        // Reversed, so that the first of several equal ones is chosen.
        let (_, best) = self
            .jpegs
            .iter()
            .enumerate()
            .rev()
            .max_by(|(a, one), (b, other)| score(*a, one).total_cmp(&score(*b, other)))?;
        Some(best.clone())
    }

    /// The storyboard, if there are stills. `size` is a still's width and height in pixels,
    /// `duration_seconds` the video's duration (0 if unknown).
    ///
    /// # Errors
    /// FFmpeg fails.
    pub(crate) async fn storyboard(
        &self,
        size: (u32, u32),
        duration_seconds: f64,
    ) -> Result<Option<Storyboard>, FfmpegError> {
        let layout = SheetLayout::new(self, size, duration_seconds);
        if layout.tiles == 0 {
            return Ok(None);
        }
        let sheet =
            process::convert(&layout.arguments(), &self.jpegs[..layout.tiles], STORYBOARD_LIMIT).await?;
        Ok(Some(Storyboard { sheet, vtt: layout.vtt() }))
    }
}

/// The images that a player shows above its seek bar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storyboard {
    /// One JPEG with all tiles, published as [`SHEET_NAME`].
    pub(crate) sheet: Bytes,
    /// WebVTT whose cues map times to parts of the sheet.
    pub(crate) vtt: String,
}

/// Positions and times of the tiles on the sheet.
#[derive(Debug, PartialEq)]
struct SheetLayout {
    tiles: usize,
    /// In pixels.
    width: u32,
    /// In pixels.
    height: u32,
    interval_seconds: f64,
    end_seconds: f64,
}

impl SheetLayout {
    fn new(stills: &Stills, (width, height): (u32, u32), duration_seconds: f64) -> Self {
        let interval_seconds = stills.interval_seconds;
        // Only tiles that begin before the end of the video, with a margin for rounding.
        let shown = (duration_seconds / interval_seconds - 0.001).ceil().max(1.0) as usize;
        let known = duration_seconds > 0.0;
        let tiles = if known { stills.jpegs.len().min(shown) } else { stills.jpegs.len() };
        let scale = (TILE / f64::from(width.max(height))).min(1.0);
        let even = |pixels: u32| ((f64::from(pixels) * scale / 2.0).round() * 2.0).max(2.0) as u32;
        Self {
            tiles,
            width: even(width),
            height: even(height),
            interval_seconds,
            end_seconds: if known { duration_seconds } else { tiles as f64 * interval_seconds },
        }
    }

    fn columns(&self) -> usize {
        self.tiles.min(COLUMNS)
    }

    fn arguments(&self) -> Vec<String> {
        let Self { width, height, .. } = self;
        let rows = self.tiles.div_ceil(COLUMNS);
        let filters = format!("scale={width}:{height}:flags=area,setsar=1,tile={}x{rows}", self.columns());
        let arguments = ["-hide_banner", "-nostdin", "-loglevel", "error"];
        let input = ["-f", "image2pipe", "-c:v", "mjpeg", "-i", "pipe:0"];
        let output = ["-frames:v", "1", "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "pipe:1"];
        [&arguments[..], &input, &["-vf", &filters], &output]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn vtt(&self) -> String {
        let Self { width, height, .. } = self;
        let mut text = String::from("WEBVTT\n");
        for tile in 0..self.tiles {
            let start = tile as f64 * self.interval_seconds;
            let end = if tile + 1 < self.tiles { start + self.interval_seconds } else { self.end_seconds };
            let (x, y) = (tile % COLUMNS * *width as usize, tile / COLUMNS * *height as usize);
            text += &format!(
                "\n{} --> {}\n{SHEET_NAME}#xywh={x},{y},{width},{height}\n",
                timestamp(start),
                timestamp(end)
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_poster_has_most_detail_and_is_not_at_the_edge() {
        let content = |contents: &[usize]| Stills::of_tests(contents).poster().map(|best| best.len() - 5);
        assert_eq!(content(&[100, 900, 1000, 1000, 100]), Some(1000));
        assert_eq!(content(&[1000, 900, 100, 950]), Some(900));
        assert_eq!(content(&[2000, 900, 100, 950]), Some(2000));
        assert_eq!(content(&[100, 900]), Some(900));
        assert_eq!(content(&[5]), Some(5));
        assert_eq!(content(&[]), None);
        let equal = Stills::of_tests(&[1, 2, 2, 1]);
        assert_eq!(equal.poster().unwrap().as_ptr(), equal.jpegs[1].as_ptr());
    }

    #[test]
    fn one_cue_per_tile_until_the_end() {
        let layout = SheetLayout::new(&Stills::of_tests(&[0; 12]), (406, 720), 11.4);
        assert_eq!((layout.width, layout.height, layout.columns()), (90, 160, 10));
        let vtt = layout.vtt();
        assert!(vtt.starts_with(
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nstoryboard-0.jpg#xywh=0,0,90,160\n\n\
             00:00:01.000 --> 00:00:02.000\nstoryboard-0.jpg#xywh=90,0,90,160\n\n"
        ));
        assert!(
            vtt.ends_with(
                "\n00:00:10.000 --> 00:00:11.000\nstoryboard-0.jpg#xywh=0,160,90,160\n\n\
                 00:00:11.000 --> 00:00:11.400\nstoryboard-0.jpg#xywh=90,160,90,160\n"
            ),
            "{vtt}"
        );
        assert_eq!(SheetLayout::new(&Stills::of_tests(&[0; 4]), (1280, 720), 3.0).tiles, 3);
        assert_eq!(SheetLayout::new(&Stills::of_tests(&[0; 4]), (1280, 720), 0.0).end_seconds, 4.0);
    }

    proptest! {
        #[test]
        fn tiles_fit_and_cues_follow_each_other(
            count in 1_usize..=100, duration in 0.0_f64..200.0, width in 1_u32..4096, height in 1_u32..4096,
        ) {
            let layout = SheetLayout::new(&Stills::of_tests(&vec![0; count]), (width, height), duration);
            prop_assert!(layout.tiles >= 1 && layout.tiles <= count);
            prop_assert!(layout.width <= 160 && layout.height <= 160);
            prop_assert!(layout.width.is_multiple_of(2) && layout.height.is_multiple_of(2));
            prop_assert!(layout.end_seconds > (layout.tiles - 1) as f64 * layout.interval_seconds);
        }
    }

    /// Runs FFmpeg with this input and returns its output.
    async fn ffmpeg(input: &[Bytes], arguments: &[&str]) -> Bytes {
        let arguments: Vec<String> = ["-loglevel", "error"]
            .iter()
            .chain(arguments)
            .chain(&["pipe:1"])
            .map(|argument| (*argument).to_owned())
            .collect();
        process::convert(&arguments, input, Duration::from_secs(30)).await.unwrap()
    }

    /// The stills of a video that the filter graph generates and `changes` filters.
    async fn stills_of(graph: &str, changes: &str) -> Stills {
        let filters = format!("{changes},{}", crate::ffmpeg::stills::filters(1.0, 0, (64, 36), &[]));
        let arguments = ["-f", "lavfi", "-i", graph, "-vf", &filters, "-fps_mode", "vfr"];
        let output = ["-c:v", "mjpeg", "-q:v", "3", "-f", "image2pipe"];
        let jpegs = ffmpeg(&[], &[&arguments[..], &output].concat()).await;
        Stills::every(1.0).read(&jpegs[..], |_| {}).await.unwrap()
    }

    /// The names of the colours of the four tiles on a sheet.
    async fn colours(sheet: &Bytes) -> Vec<&'static str> {
        let arguments =
            ["-f", "image2pipe", "-c:v", "mjpeg", "-i", "pipe:0", "-vf", "format=rgb24,scale=4:1:flags=area"];
        let output = ["-f", "rawvideo"];
        let pixels = ffmpeg(std::slice::from_ref(sheet), &[&arguments[..], &output].concat()).await;
        let name = |pixel: &[u8]| match [pixel[0] > 128, pixel[1] > 128, pixel[2] > 128] {
            [true, false, false] => "red",
            [false, true, false] => "green",
            [false, false, true] => "blue",
            _ => "other",
        };
        pixels.chunks(3).map(name).collect()
    }

    #[tokio::test]
    async fn tiles_show_the_frame_on_screen_even_if_frames_are_rare() {
        // A green frame at 1.3 s stays on screen until the first blue frame at 2.9 s.
        let stills = stills_of(
            "color=red:s=320x180:r=10:d=1.3[r];color=lime:s=320x180:r=10:d=1.6[g];\
             color=blue:s=320x180:r=10:d=1.1[b];[r][g][b]concat=n=3",
            "select='lt(t,1.35)+gt(t,2.85)'",
        )
        .await;
        let storyboard = stills.storyboard((64, 36), 4.0).await.unwrap().unwrap();
        assert_eq!(colours(&storyboard.sheet).await, ["red", "red", "green", "blue"]);
        assert_eq!(storyboard.vtt.matches(" --> ").count(), 4);
    }

    #[tokio::test]
    async fn one_frame_makes_one_tile_and_late_video_is_shown_from_the_start() {
        let one = stills_of("testsrc=s=64x36:r=25:d=0.04", "null").await;
        assert_eq!(one.jpegs.len(), 1);
        assert_eq!(one.storyboard((64, 36), 0.04).await.unwrap().unwrap().vtt.matches(" --> ").count(), 1);
        let late = stills_of("testsrc=s=64x36:r=25:d=1", "setpts=PTS+1.5/TB").await;
        assert_eq!(late.jpegs.len(), 3);
        assert_eq!(late.jpegs[0], late.jpegs[1]);
    }

    #[tokio::test]
    async fn a_black_start_is_not_the_poster() {
        let stills =
            stills_of("color=black:s=320x180:d=2[b];testsrc=s=320x180:d=3[t];[b][t]concat", "null").await;
        let poster = stills.poster().unwrap();
        assert!(stills.jpegs[2..].contains(&poster));
    }

    #[tokio::test]
    async fn invalid_images_have_no_storyboard() {
        assert_eq!(Stills::of_tests(&[]).storyboard((320, 180), 4.0).await.unwrap(), None);
        let error = Stills::of_tests(&[9]).storyboard((320, 180), 4.0).await.unwrap_err();
        assert!(matches!(error, FfmpegError::Failed { .. }), "{error}");
    }
}

//! The filters that hold the picture: repeat frames in gaps, and extend it to the start and end of the
//! stream.
//!
//! A second video is the clock. `mix` emits a frame at each time of either video, also after the end of the
//! picture. As it is disabled, it mixes nothing: each frame is the picture's latest one, with its side data.
//! `select` drops the frames at times of the clock, except after a long gap. The source's frames stay
//! unchanged and keep their times.
//!
//! The source's frames are at even ticks and the clock's at odd ticks, so a later reader can tell them apart.
//! The result depends on the last frame of the source only, so an attempt that starts in the middle of a gap
//! repeats the same frames at the same times.

use crate::plan::hold::{Hold, REPEAT_RATE};

use super::colour::TAGS;

/// A gap between the source's frames that is shorter, in seconds, is left as it is. (Source rates from five
/// frames per second on.)
const SHORTEST_GAP_SECONDS: f64 = 0.2;
/// Times are compared with this much tolerance in seconds.
const TOLERANCE_SECONDS: f64 = 0.001;

/// The chains of a filter graph that hold the frames of the pad `from`, of this size in pixels, and output
/// them to the pad `to`. Frames before `from_seconds` need not be right.
pub(super) fn chains(
    hold: &Hold,
    (width, height): (u32, u32),
    from_seconds: f64,
    from: &str,
    to: &str,
) -> Vec<String> {
    let Hold { timescale, end_seconds, .. } = *hold;
    let on_clock = format!("settb=1/{timescale}");
    // `settb` rounds if the source's clock is too fine to be doubled.
    let even = format!("{on_clock},setpts=2*floor(PTS/2)");
    // An even number of ticks, so that all times of the clock are odd.
    let step = (timescale / REPEAT_RATE) & !1;
    let black = format!("color=black:size={width}x{height}:rate={REPEAT_RATE},format=yuv420p,{TAGS}");
    let mut chains = Vec::new();
    let mut picture = from.to_owned();
    if hold.black_until_seconds.is_some_and(|until| from_seconds < until) {
        chains.push(format!("{black},trim=end_frame=1[black]"));
        // `interleave` changes the clock to microseconds.
        chains.push(format!("{from}[black]interleave[late]"));
        picture = "[late]".into();
    }
    chains.push(format!("{picture}{even}[picture]"));
    // The clock begins before the picture: `mix` starts with the later one.
    let clock = format!("{black},{on_clock},setpts=(N-1)*{step}+1");
    let (end, mode) = if end_seconds > 0.0 {
        // A repeat just before the end would last moments.
        let last = end_seconds - 0.5 / f64::from(REPEAT_RATE);
        (format!(",trim=end={last:.6}"), "")
    } else {
        // The end of the stream is unknown, so the stream ends with the picture.
        (String::new(), ":duration=shortest")
    };
    chains.push(format!("{clock}{end}[clock]"));
    let tick = 1.0 / f64::from(REPEAT_RATE) - TOLERANCE_SECONDS;
    let gap = SHORTEST_GAP_SECONDS - TOLERANCE_SECONDS;
    let keep =
        format!("not(mod(pts,2))+gte(t-prev_selected_t,if(mod(prev_selected_pts,2),{tick:.3},{gap:.3}))");
    // Players would show captions again with each repeat.
    let no_captions = format!("sidedata=mode=delete:type=A53_CC:enable='mod(round(t*{timescale}),2)'");
    chains.push(format!("[picture][clock]mix=enable=0{mode},select='{keep}',{no_captions}{to}"));
    chains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::ffmpeg;

    /// The times in seconds and checksums of the frames that come out, for the frames of `source`.
    fn held(source: &str, hold: &Hold, from_seconds: f64) -> Vec<(f64, String)> {
        let chains = chains(hold, (64, 36), from_seconds, "[source]", "[out]");
        frames(&format!("{source},format=yuv420p[source];{}", chains.join(";")))
    }

    /// The times in seconds and checksums of the frames of the pad `out`.
    fn frames(graph: &str) -> Vec<(f64, String)> {
        let frames = frames_in_ticks(graph, TICKS);
        frames.into_iter().map(|(ticks, checksum)| (ticks as f64 / f64::from(TICKS), checksum)).collect()
    }

    fn frames_in_ticks(graph: &str, timescale: u32) -> Vec<(u64, String)> {
        let arguments = format!(
            "-filter_complex {graph} -map [out] -fps_mode vfr -enc_time_base 1:{timescale} -f framecrc -"
        );
        let text = String::from_utf8(ffmpeg(&arguments)).unwrap();
        let frames = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            (fields[2].parse().unwrap(), fields[5].to_owned())
        });
        frames.collect()
    }

    const TICKS: u32 = 25_600;

    fn hold(black_until_seconds: Option<f64>, end_seconds: f64) -> Hold {
        Hold { timescale: TICKS, black_until_seconds, end_seconds }
    }

    /// Frames at 0 to 0.36 s and 2.0 to 2.36 s, 25 per second.
    const TWO_BURSTS: &str = "testsrc2=size=64x36:rate=25:duration=4,select='lt(mod(n,50),10)'";

    #[test]
    fn frames_are_repeated_in_gaps_and_to_the_end() {
        let frames = held(TWO_BURSTS, &hold(None, 3.0), 0.0);
        let times: Vec<f64> = frames.iter().map(|frame| (frame.0 * 100.0).round() / 100.0).collect();
        let burst = |start: f64| (0..10).map(move |n| start + f64::from(n) / 25.0);
        let repeats = |first: u32, last: u32| (first..=last).map(|n| f64::from(n) / 10.0);
        let expected: Vec<f64> =
            burst(0.0).chain(repeats(6, 19)).chain(burst(2.0)).chain(repeats(26, 29)).collect();
        let near = |(one, other): (&f64, &f64)| (one - other).abs() < 0.001;
        assert!(times.len() == expected.len() && times.iter().zip(&expected).all(near), "{times:?}");
        assert!(frames[9..24].iter().all(|frame| frame.1 == frames[9].1), "repeats are identical");
        let is_even = |frame: &&(f64, String)| (frame.0 * f64::from(TICKS)).round() % 2.0 == 0.0;
        let sources: Vec<_> = frames.iter().filter(is_even).cloned().collect();
        assert_eq!(sources, self::frames(&format!("{TWO_BURSTS},format=yuv420p[out]")), "source frames");
    }

    #[test]
    fn five_frames_per_second_are_left_as_they_are() {
        let five = "testsrc2=size=64x36:rate=5:duration=2";
        assert_eq!(held(five, &hold(None, 2.0), 0.0).len(), 10);
    }

    #[test]
    fn the_finest_clock_tells_frames_from_repeats() {
        let timescale = 499_998;
        let hold = Hold { timescale, ..hold(None, 4.0) };
        let chains = chains(&hold, (64, 36), 0.0, "[source]", "[out]");
        // Frames at odd ticks of a clock that is too fine.
        let source = format!("{TWO_BURSTS},settb=1/10000000,setpts=PTS+N*3333,format=yuv420p[source]");
        let frames = frames_in_ticks(&format!("{source};{}", chains.join(";")), timescale);
        let (of_source, repeats): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame.0 % 2 == 0);
        assert_eq!((of_source.len(), repeats.len()), (20, 15 + 14));
    }

    #[test]
    fn one_frame_lasts_to_the_end() {
        let slide = "testsrc2=size=64x36:rate=25:duration=0.04";
        let frames = held(slide, &hold(None, 90.0), 0.0);
        assert_eq!(frames.len(), 1 + 898);
        assert!(frames.iter().all(|frame| frame.1 == frames[0].1));
    }

    #[test]
    fn an_unknown_end_is_that_of_the_picture() {
        let frames = held(TWO_BURSTS, &hold(None, 0.0), 0.0);
        assert!((2.36..2.5).contains(&frames.last().unwrap().0), "{frames:?}");
        assert!(frames.iter().any(|frame| (1.0..1.1).contains(&frame.0)), "gaps are filled: {frames:?}");
    }

    #[test]
    fn black_precedes_a_late_picture() {
        let late = "testsrc2=size=64x36:rate=25:duration=1,setpts=PTS+1/TB";
        let frames = held(late, &hold(Some(1.0), 2.0), 0.0);
        assert_eq!(frames[0].0, 0.0);
        let black = frames.iter().filter(|frame| frame.1 == frames[0].1).count();
        assert!(frames[..black].iter().all(|frame| frame.0 < 1.0));
        assert_eq!((black, frames[black].0), (1 + 8, 1.0));
        // An attempt that resumes after the start of the picture needs no black.
        assert_eq!(held(late, &hold(Some(1.0), 2.0), 1.5)[0].0, 1.0);
    }

    #[test]
    fn an_attempt_that_starts_in_a_gap_repeats_the_same_frames() {
        let whole = held(TWO_BURSTS, &hold(None, 3.0), 0.0);
        let later = held(&format!("{TWO_BURSTS},select='gte(t,0.3)'"), &hold(None, 3.0), 1.2);
        let from = |frames: &[(f64, String)]| -> Vec<_> {
            frames.iter().filter(|frame| frame.0 >= 1.2).cloned().collect()
        };
        assert_eq!(from(&later), from(&whole));
    }
}

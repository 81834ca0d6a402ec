//! The filters for stills.

/// The filters that pick the frame on screen at each multiple of the interval, from multiple number `first`
/// (counted from 0) to the end of the video, and scale it to this size in pixels. `corrections` are filters
/// that run before scaling. They see only the picked frames, so their cost does not matter.
///
/// Stills need a filter graph of their own, apart from the rungs': FFmpeg 7 requests the next frame from a
/// graph's slowest output, and meanwhile uncompressed frames of the other outputs accumulate.
///
/// `fps` repeats a frame at each multiple while the frame is on screen, and repeats the first frame if the
/// video begins late. It rounds times up: a frame counts from the next multiple at or after its time. `fps`
/// outputs a frame only when the next frame arrives.
pub(crate) fn filters(
    interval_seconds: f64,
    first: usize,
    (width, height): (u32, u32),
    corrections: &[&str],
) -> String {
    let tenths = (interval_seconds * 10.0).round() as u64;
    let start = (first as f64 * interval_seconds * 10.0).round() / 10.0;
    let pick = format!("fps=fps=10/{tenths}:start_time={start}:round=up");
    // The JPEG encoder needs full range.
    let fit = format!("scale={width}:{height}:flags=bicubic:out_range=pc,setsar=1,format=yuvj420p");
    [&[pick.as_str()], corrections, &[fit.as_str()]].concat().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_run_between_selection_and_scaling() {
        assert_eq!(
            filters(3.1, 0, (1280, 720), &["hflip"]),
            "fps=fps=10/31:start_time=0:round=up,hflip,\
             scale=1280:720:flags=bicubic:out_range=pc,setsar=1,format=yuvj420p"
        );
    }
}

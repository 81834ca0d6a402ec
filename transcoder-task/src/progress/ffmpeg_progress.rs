//! FFmpeg's progress reports (`-progress`).

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    time::timeout,
};

use crate::process::FfmpegError;

use super::state::ProgressState;

/// Time without progress after which FFmpeg counts as stalled: its decoder hangs, or an output is not read.
/// FFmpeg reports about once per second, and uploads have much shorter limits of their own.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(600);

/// Reads FFmpeg's reports until the pipe ends.
///
/// # Errors
/// [`FfmpegError::Stalled`] if neither position nor frame count changes for [`STALL_LIMIT`].
pub(crate) async fn follow(pipe: pipe::Receiver, progress_state: &ProgressState) -> Result<(), FfmpegError> {
    let mut lines = BufReader::new(pipe).lines();
    let mut latest = FfmpegProgress::default();
    let mut moved = Instant::now();
    loop {
        let line = match timeout(STALL_LIMIT.saturating_sub(moved.elapsed()), lines.next_line()).await {
            Err(_) => return Err(FfmpegError::Stalled(STALL_LIMIT.as_secs())),
            Ok(Ok(Some(line))) => line,
            Ok(_) => return Ok(()),
        };
        let before = (latest.seconds, latest.frames);
        if latest.read(&line) {
            progress_state.at(latest.seconds, latest.speed);
        }
        if latest.seconds > before.0 || latest.frames > before.1 {
            moved = Instant::now();
        }
    }
}

/// FFmpeg's latest report.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FfmpegProgress {
    /// Position of the output that is furthest ahead.
    pub(super) seconds: f64,
    /// Number of video frames.
    pub(super) frames: u64,
    pub(super) speed: f64,
}

impl FfmpegProgress {
    /// Parses one `key=value` line. Returns whether it completes a report.
    pub(super) fn read(&mut self, line: &str) -> bool {
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            // The value is "N/A" before the first frame.
            Some(("out_time_us", value)) => {
                if let Ok(microseconds) = value.parse::<i64>() {
                    self.seconds = microseconds.max(0) as f64 / 1e6;
                }
            }
            Some(("frame", value)) => self.frames = value.parse().unwrap_or(self.frames),
            Some(("speed", value)) => {
                if let Ok(speed) = value.trim_end_matches('x').trim().parse() {
                    self.speed = speed;
                }
            }
            Some(("progress", _)) => return true,
            _ => {}
        }
        false
    }
}

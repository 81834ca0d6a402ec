//! Progress for people: a bar on a terminal, a log line every few seconds elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use crate::ffmpeg::FfmpegError;

/// Between log lines.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// FFmpeg reports about once a second; a decoder that hangs, or an encoder whose output nobody takes, stops
/// reporting. Uploads have time limits of their own, well under this.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// Follows FFmpeg's progress until the pipe ends.
///
/// # Errors
/// Stalled, if neither position nor frames move for [`STALL_LIMIT`].
pub async fn follow(pipe: pipe::Receiver, duration_seconds: f64) -> Result<(), FfmpegError> {
    let mut display = Display::new(duration_seconds);
    let mut lines = BufReader::new(pipe).lines();
    let mut latest = Latest::default();
    let mut moved = Instant::now();
    loop {
        let line = match tokio::time::timeout(STALL_LIMIT.saturating_sub(moved.elapsed()), lines.next_line())
            .await
        {
            Err(_) => return Err(FfmpegError::Stalled(STALL_LIMIT.as_secs())),
            Ok(Ok(Some(line))) => line,
            Ok(_) => break,
        };
        let before = (latest.seconds, latest.frames);
        if latest.read(&line) {
            display.show(&latest);
        }
        if latest.seconds > before.0 || latest.frames > before.1 {
            moved = Instant::now();
        }
    }
    display.finish();
    Ok(())
}

#[derive(Debug, Default, PartialEq)]
struct Latest {
    /// The furthest that any output is.
    seconds: f64,
    /// Of the picture.
    frames: u64,
    speed: f64,
}

impl Latest {
    /// Takes one `key=value` line; true when a report is complete.
    fn read(&mut self, line: &str) -> bool {
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            // "N/A" before the first frame.
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

struct Display {
    duration_seconds: f64,
    bar: Option<ProgressBar>,
    logged: Option<Instant>,
}

impl Display {
    fn new(duration_seconds: f64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new((duration_seconds * 10.0) as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}  ETA {eta}") {
                bar.set_style(style);
            }
            bar
        });
        Self { duration_seconds, bar, logged: None }
    }

    fn show(&mut self, latest: &Latest) {
        if let Some(bar) = &self.bar {
            bar.set_position((latest.seconds * 10.0) as u64);
            bar.set_message(format!("{:.1}x", latest.speed));
        } else if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let done = if self.duration_seconds > 0.0 { latest.seconds / self.duration_seconds } else { 0.0 };
            let left = self.duration_seconds - latest.seconds;
            let eta = if latest.speed > 0.0 { left.max(0.0) / latest.speed } else { 0.0 };
            tracing::info!(
                percent = (done * 100.0).min(100.0).round() as u64,
                speed = format!("{:.1}x", latest.speed),
                eta_seconds = eta.round() as u64,
                "progress"
            );
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ffmpegs_lines() {
        let mut latest = Latest::default();
        for line in ["frame=10", "out_time_us=N/A", "speed=N/A"] {
            assert!(!latest.read(line));
        }
        assert!(latest.read("progress=continue"));
        assert_eq!(latest, Latest { frames: 10, ..Latest::default() });
        for line in ["out_time_us=1500000", "speed= 3.2x", "progress=end"] {
            latest.read(line);
        }
        assert_eq!(latest, Latest { seconds: 1.5, frames: 10, speed: 3.2 });
    }
}

//! Reads FFmpeg's messages, counts decoding errors in them, and attributes a failure to the source or to the
//! service.

use std::{collections::VecDeque, os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::ChildStderr,
};

use super::error::FfmpegError;

/// Number of last lines of stderr that are kept, to find the cause of a failure.
const KEPT_LINES: usize = 20;
/// Longest line of stderr. A hostile file can make FFmpeg write endless lines.
const LONGEST_LINE: u64 = 4096;

/// FFmpeg's messages on stderr.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The last lines.
    pub(super) lines: VecDeque<String>,
    /// Number of packets and frames with decoding errors.
    pub(super) damaged: u64,
    /// True if the last message reported a decoding error. FFmpeg prints only the number of its repetitions.
    last_was_damage: bool,
}

impl Messages {
    fn add(&mut self, line: String) {
        // The first is about a concealed frame, the others about a lost packet (FFmpeg 5 and 7).
        const DAMAGE: [&str; 3] =
            ["corrupt decoded frame", "Error while decoding stream", "Error submitting packet to decoder"];
        const CHANGES: [&str; 2] = ["Changing video frame properties on the fly", "filter context - w: "];
        let repetitions = line.strip_prefix("Last message repeated ").and_then(|rest| rest.split(' ').next());
        if let Some(times) = repetitions.and_then(|times| times.parse::<u64>().ok()) {
            if self.last_was_damage {
                self.damaged = self.damaged.saturating_add(times);
            }
        } else {
            self.last_was_damage = DAMAGE.iter().any(|words| line.contains(words));
            self.damaged += u64::from(self.last_was_damage);
        }
        // FFmpeg prints these for every frame of another size. They would displace the cause of a failure.
        if CHANGES.iter().any(|words| line.contains(words)) {
            return;
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// Reads FFmpeg's messages to the end of its stderr, and logs them.
pub(super) async fn read_messages(stderr: Option<ChildStderr>) -> Messages {
    let mut messages = Messages::default();
    let Some(stderr) = stderr else { return messages };
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // A line over the limit is split.
    while let Ok(1..) = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        line.clear();
        tracing::debug!("ffmpeg: {text}");
        messages.add(text);
    }
    messages
}

/// Classifies a failure by FFmpeg's last messages.
#[must_use]
pub(super) fn failure(status: ExitStatus, messages: &VecDeque<String>) -> FfmpegError {
    if status.signal() == Some(Signal::KILL.as_raw()) {
        return FfmpegError::Killed;
    }
    let failed = || FfmpegError::Failed {
        status,
        complaint: messages.back().cloned().unwrap_or_else(|| "no message".into()),
    };
    if status.signal().is_some() {
        return failed();
    }
    let has_message = |patterns: &[&str]| {
        messages.iter().find(|line| patterns.iter().any(|pattern| line.contains(pattern))).cloned()
    };
    if has_message(&["Error while opening encoder", "Cannot allocate memory", "No space left"]).is_some() {
        return failed();
    }
    if let Some(line) = has_message(&["no decoder found for", "Decoder (codec"]) {
        return FfmpegError::Source(match missing_decoder(&line) {
            Some(name) => {
                format!("the video or its audio is in a format ({name}) that this service cannot read")
            }
            None => "the video or its audio is in a format that this service cannot read".into(),
        });
    }
    // Messages that FFmpeg 5 to 7 print if they can decode nothing. The first one also appears if less than a
    // third can be decoded.
    let nothing = [
        "Decode error rate",
        "Invalid data found",
        "partial file",
        "Error marking filters as finished",
        "Could not open encoder before EOF",
        "received no packets",
    ];
    if has_message(&nothing).is_some() {
        return FfmpegError::Source(
            "the file is damaged: nothing, or next to nothing, in it can be decoded".into(),
        );
    }
    failed()
}

/// The codec's name in `Decoder (codec vvc) not found…` (FFmpeg 5) or `…no decoder found for: vvc` (FFmpeg
/// 7).
#[must_use]
fn missing_decoder(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("(codec ").or_else(|| line.split_once("found for: "))?;
    let name = rest.split([')', ' ']).next()?;
    (!matches!(name, "" | "none" | "unknown")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_errors_are_counted() {
        let count = |lines: &[&str]| {
            let mut messages = Messages::default();
            lines.iter().for_each(|line| messages.add((*line).to_owned()));
            messages.damaged
        };
        let ffmpeg_5 = [
            "[h264 @ 0x5] error while decoding MB 12 3, bytestream -5",
            "file:a.mp4: corrupt decoded frame in stream 0",
            "Last message repeated 2 times",
            "Error while decoding stream #0:1: Invalid data found when processing input",
        ];
        let ffmpeg_7 = [
            "[vist#0:0/h264 @ 0x5] [dec:h264 @ 0x6] corrupt decoded frame",
            "[vist#0:0/av1 @ 0x5] [dec:libdav1d @ 0x6] Error submitting packet to decoder: Invalid data found",
            "[vist#0:0/av1 @ 0x5] [dec:libdav1d @ 0x6] Decoding error: Invalid data found",
            "Last message repeated 7 times",
        ];
        assert_eq!(
            (count(&ffmpeg_5), count(&ffmpeg_7), count(&["Last message repeated 9 times"])),
            (4, 2, 0)
        );
    }

    #[test]
    fn messages_about_frames_that_change_do_not_displace_others() {
        let mut messages = Messages::default();
        messages.add("the cause".to_owned());
        let change = "[graph 0 input from stream 0:0 @ 0x5] Changing video frame properties on the fly is not \
            supported by all filters.";
        (0..2 * KEPT_LINES).for_each(|_| messages.add(change.to_owned()));
        assert_eq!(messages.lines, ["the cause"]);
    }

    #[test]
    fn failures_are_attributed_to_source_or_service() {
        let failed = ExitStatus::from_raw(256);
        let lines = |text: &str| VecDeque::from([text.to_owned()]);
        for (line, expected) in [
            ("Decoder (codec vvc) not found for input stream #0:0", "format (vvc) that this service"),
            ("Decoding requested, but no decoder found for: vvc", "format (vvc) that this service"),
            ("Decoder (codec none) not found for input stream #0:0", "in a format that this service"),
            ("Decode error rate 0.9 exceeds maximum 0.666667", "next to nothing, in it can be decoded"),
            ("a.mp4: Invalid data found when processing input", "next to nothing, in it can be decoded"),
        ] {
            let error = failure(failed, &lines(line));
            assert!(matches!(&error, FfmpegError::Source(text) if text.contains(expected)), "{error}");
        }
        for message in ["Error while opening encoder", "Conversion failed!"] {
            assert!(matches!(failure(failed, &lines(message)), FfmpegError::Failed { .. }));
        }
        assert!(matches!(failure(ExitStatus::from_raw(9), &lines("")), FfmpegError::Killed));
        let crashed = failure(ExitStatus::from_raw(11), &lines("Invalid data found"));
        assert!(matches!(crashed, FfmpegError::Failed { .. }));
    }
}

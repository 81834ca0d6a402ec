//! Runs FFmpeg and ffprobe; the only place that starts processes.
//!
//! A process has its own group and an environment without credentials. Its outputs are pipes. The last lines
//! of its stderr are kept for errors. It is terminated before it is killed.

use std::{
    collections::VecDeque,
    os::{fd::RawFd, unix::process::ExitStatusExt},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use futures::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
};
use vidstreamx_job::Exit;

/// The first file descriptor after stdin, stdout and stderr.
pub(crate) const FIRST_PIPE_FD: RawFd = 3;
/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// A process that ends within this time after its pipes have closed has ended by itself.
const ALREADY_ENDED: Duration = Duration::from_millis(500);
/// Lines of stderr that are kept for errors.
const KEPT_LINES: usize = 20;
/// Longest line of stderr. A hostile file can make FFmpeg write endless lines.
const LONGEST_LINE: u64 = 4096;

/// A failed FFmpeg process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FfmpegError {
    /// It cannot be started, or the system has no pipe.
    #[error("cannot run ffmpeg: {0} (is it installed?)")]
    Run(std::io::Error),
    /// The source is unusable. The text is for the uploader.
    #[error("{0}")]
    Source(String),
    #[error("ffmpeg was killed, most likely for lack of memory")]
    Killed,
    /// Any other failure.
    #[error("ffmpeg failed ({status}): {complaint}")]
    Failed {
        /// Exit code or signal.
        status: ExitStatus,
        /// Last line of its stderr.
        complaint: String,
    },
    #[error("ffmpeg made no progress for {0} seconds and was stopped")]
    Stalled(u64),
}

impl FfmpegError {
    /// The exit code that tells the consumer what to do.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Run(_) => Exit::Misconfigured,
            Self::Source(_) => Exit::Unusable,
            Self::Killed => Exit::OutOfMemory,
            Self::Failed { .. } => Exit::Internal,
            Self::Stalled(_) => Exit::Transient,
        }
    }
}

/// A command for `ffmpeg` or `ffprobe` with an environment without credentials. Its own process group keeps a
/// terminal's Ctrl-C from reaching it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().process_group(0).kill_on_drop(true).stdin(Stdio::null());
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// FFmpeg's version line.
///
/// # Errors
/// FFmpeg cannot be started.
pub(crate) async fn version() -> Result<String, FfmpegError> {
    let output = command("ffmpeg").arg("-version").output().await.map_err(FfmpegError::Run)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// A running FFmpeg.
#[derive(Debug)]
pub(crate) struct Ffmpeg {
    child: Child,
    /// Absent after they have been read.
    messages: Option<JoinHandle<Messages>>,
}

/// FFmpeg's messages on stderr.
#[derive(Debug, Default)]
struct Messages {
    /// The last lines.
    lines: VecDeque<String>,
    /// Number of packets and frames with decoding errors.
    damaged: u64,
    /// True if the last line reported such an error. FFmpeg then only counts repetitions.
    last_was_damage: bool,
}

impl Messages {
    fn add(&mut self, line: String) {
        // The first is about a concealed frame, the others about a lost packet (FFmpeg 5 and 7).
        const DAMAGE: [&str; 3] =
            ["corrupt decoded frame", "Error while decoding stream", "Error submitting packet to decoder"];
        let repetitions = line.strip_prefix("Last message repeated ").and_then(|rest| rest.split(' ').next());
        if let Some(times) = repetitions.and_then(|times| times.parse::<u64>().ok()) {
            if self.last_was_damage {
                self.damaged = self.damaged.saturating_add(times);
            }
        } else {
            self.last_was_damage = DAMAGE.iter().any(|words| line.contains(words));
            self.damaged += u64::from(self.last_was_damage);
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

impl Ffmpeg {
    /// Starts FFmpeg with this many pipes from [`FIRST_PIPE_FD`] on, and returns their reading ends.
    ///
    /// # Errors
    /// FFmpeg cannot be started, or the system has no pipe.
    pub(crate) fn spawn(
        arguments: &[String],
        pipes: usize,
    ) -> Result<(Self, Vec<pipe::Receiver>), FfmpegError> {
        let mut receivers = Vec::with_capacity(pipes);
        let mut mappings = Vec::with_capacity(pipes);
        for child_fd in (FIRST_PIPE_FD..).take(pipes) {
            let (sender, receiver) = pipe::pipe().map_err(FfmpegError::Run)?;
            let parent_fd = sender.into_blocking_fd().map_err(FfmpegError::Run)?;
            mappings.push(FdMapping { parent_fd, child_fd });
            receivers.push(receiver);
        }
        let mut command = command("ffmpeg");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        command.fd_mappings(mappings).map_err(|error| FfmpegError::Run(std::io::Error::other(error)))?;
        let mut child = command.spawn().map_err(FfmpegError::Run)?;
        // The command holds the pipes' writing ends, so no pipe ends while the command lives.
        drop(command);
        let messages = tokio::spawn(read_messages(child.stderr.take()));
        Ok((Self { child, messages: Some(messages) }, receivers))
    }

    /// Waits for FFmpeg's end. Returns the number of decoding errors, each of which is a visible fault or a
    /// gap.
    ///
    /// # Errors
    /// FFmpeg failed.
    pub(crate) async fn wait(&mut self) -> Result<u64, FfmpegError> {
        let (status, messages) = self.end().await?;
        if status.success() {
            return Ok(messages.damaged);
        }
        let error = failure(status, &messages.lines);
        if matches!(error, FfmpegError::Source(_)) {
            // The error is for the uploader; the log is for operators.
            for line in &messages.lines {
                tracing::info!("ffmpeg: {line}");
            }
        }
        Err(error)
    }

    async fn end(&mut self) -> Result<(ExitStatus, Messages), FfmpegError> {
        let status = self.child.wait().await.map_err(FfmpegError::Run)?;
        let messages = match &mut self.messages {
            Some(messages) => messages.await.unwrap_or_default(),
            None => Messages::default(),
        };
        self.messages = None;
        Ok((status, messages))
    }

    /// Terminates FFmpeg, then kills it.
    ///
    /// # Errors
    /// FFmpeg had already failed by itself, for another reason than a closed pipe.
    pub(crate) async fn stop(mut self) -> Result<(), FfmpegError> {
        if let Some(group) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let ended = tokio::time::timeout(ALREADY_ENDED, self.child.wait()).await.is_ok();
            if !ended {
                let _ = kill_process_group(group, Signal::TERM);
                if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = self.child.wait().await;
                return Ok(());
            }
        }
        let (status, messages) = self.end().await?;
        let is_unread = messages.lines.iter().any(|line| line.contains("Broken pipe"));
        if status.success() || is_unread && status.signal().is_none() {
            return Ok(());
        }
        Err(failure(status, &messages.lines))
    }
}

/// Waits for several processes. The first one does most of the work; after its end, the others have
/// `patience` to end. Returns the largest number of decoding errors of one process.
///
/// # Errors
/// A process failed, or did not end in time.
pub(crate) async fn wait_for_all(ffmpegs: &mut [Ffmpeg], patience: Duration) -> Result<u64, FfmpegError> {
    let (first, others) = ffmpegs.split_at_mut(ffmpegs.len().min(1));
    let mut first = pin!(try_join_all(first.iter_mut().map(Ffmpeg::wait)));
    let mut others = pin!(try_join_all(others.iter_mut().map(Ffmpeg::wait)));
    let (first, others) = tokio::select! {
        first = &mut first => {
            let others = tokio::time::timeout(patience, others).await;
            (first?, others.map_err(|_| FfmpegError::Stalled(patience.as_secs()))??)
        }
        others = &mut others => {
            let others = others?;
            (first.await?, others)
        }
    };
    Ok(first.into_iter().chain(others).max().unwrap_or(0))
}

/// Runs FFmpeg from memory to memory: it reads `input` from `pipe:0` and writes to `pipe:1`.
///
/// # Errors
/// FFmpeg failed, or did not end within `limit`. The error is never [`FfmpegError::Source`], because the
/// input is the task's own.
pub(crate) async fn convert(
    arguments: &[String],
    input: &[Bytes],
    limit: Duration,
) -> Result<Bytes, FfmpegError> {
    let mut command = command("ffmpeg");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(FfmpegError::Run)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            for part in input {
                // If FFmpeg ends early, its exit code has the reason.
                if stdin.write_all(part).await.is_err() {
                    break;
                }
            }
        }
    };
    let collect = async {
        let mut output = Vec::new();
        if let Some(mut stdout) = stdout {
            stdout.read_to_end(&mut output).await?;
        }
        Ok(output)
    };
    let messages = read_messages(child.stderr.take());
    // Dropping the child kills it.
    let work = async { tokio::join!(feed, collect, messages, child.wait()) };
    let ((), output, messages, status) =
        tokio::time::timeout(limit, work).await.map_err(|_| FfmpegError::Stalled(limit.as_secs()))?;
    let (output, status) = (output.map_err(FfmpegError::Run)?, status.map_err(FfmpegError::Run)?);
    if status.success() {
        return Ok(output.into());
    }
    Err(match failure(status, &messages.lines) {
        FfmpegError::Source(complaint) => FfmpegError::Failed { status, complaint },
        error => error,
    })
}

async fn read_messages(stderr: Option<ChildStderr>) -> Messages {
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

fn failure(status: ExitStatus, messages: &VecDeque<String>) -> FfmpegError {
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
    // Messages of FFmpeg 5 to 7 that can decode nothing. The first one also appears if less than a third can
    // be decoded.
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

/// `Decoder (codec vvc) not found…` (FFmpeg 5) or `…no decoder found for: vvc` (7).
fn missing_decoder(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("(codec ").or_else(|| line.split_once("found for: "))?;
    let name = rest.split([')', ' ']).next()?;
    (!matches!(name, "" | "none" | "unknown")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(arguments: &str, pipes: usize) -> (Ffmpeg, Vec<pipe::Receiver>) {
        let arguments = format!("-nostdin -loglevel error {arguments}");
        Ffmpeg::spawn(&arguments.split(' ').map(str::to_owned).collect::<Vec<_>>(), pipes).unwrap()
    }

    #[tokio::test]
    async fn a_closed_pipe_is_not_a_failure() {
        let (mut ffmpeg, pipes) = running("-f lavfi -i color=size=640x360 -f rawvideo pipe:3", 1);
        drop(pipes);
        ffmpeg.child.wait().await.unwrap();
        ffmpeg.stop().await.unwrap();
        let (mut ffmpeg, _) = running("-i nothing.mp4 -f null -", 0);
        ffmpeg.child.wait().await.unwrap();
        ffmpeg.stop().await.unwrap_err();
    }

    #[tokio::test]
    async fn a_process_that_outlives_the_first_has_stalled() {
        let all = |arguments: [&str; 2]| arguments.map(|arguments| running(arguments, 0).0);
        let (brief, endless) =
            ("-f lavfi -i nullsrc=duration=1 -f null -", "-re -f lavfi -i nullsrc -f null -");
        let error = wait_for_all(&mut all([brief, endless]), Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, FfmpegError::Stalled(_)), "{error}");
        wait_for_all(&mut all([brief, brief]), Duration::from_secs(60)).await.unwrap();
        let error = wait_for_all(&mut all([endless, "-i nothing.mp4 -f null -"]), Duration::MAX).await;
        assert!(
            matches!(error.unwrap_err(), FfmpegError::Failed { .. }),
            "a failure does not wait for the first process"
        );
    }

    #[tokio::test]
    async fn pipes_carry_bytes_and_the_environment_is_empty() {
        // FFmpeg and its pipes are real, because a fake would hide what this tests.
        let (mut ffmpeg, mut pipes) = Ffmpeg::spawn(
            &[
                "-loglevel",
                "error",
                "-f",
                "lavfi",
                "-i",
                "color=size=16x16:duration=0.1",
                "-f",
                "rawvideo",
                "pipe:3",
            ]
            .map(str::to_owned),
            1,
        )
        .unwrap();
        let mut bytes = Vec::new();
        pipes[0].read_to_end(&mut bytes).await.unwrap();
        ffmpeg.wait().await.unwrap();
        assert!(!bytes.is_empty());
        let output = command("env").output().await.unwrap();
        let names: Vec<_> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| line.split('=').next().map(str::to_owned))
            .collect();
        assert!(names.iter().all(|name| name == "PATH" || name == "LD_LIBRARY_PATH"), "{names:?}");
    }

    #[tokio::test]
    async fn a_failure_has_ffmpegs_last_message() {
        let (mut ffmpeg, _pipes) = Ffmpeg::spawn(&["-i".into(), "/no/such/file".into()], 0).unwrap();
        let error = ffmpeg.wait().await.unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn convert_has_a_time_limit_and_never_blames_the_source() {
        let run = async |arguments: &str, input: &'static [u8], limit| {
            let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            convert(&arguments, &[input.into(), input.into()], limit).await
        };
        let copy = "-loglevel error -f s16le -ar 8000 -ac 1 -i pipe:0 -f s16le pipe:1";
        let minute = Duration::from_secs(60);
        assert_eq!(run(copy, b"abcd", minute).await.unwrap(), &b"abcdabcd"[..]);
        let garbage =
            run("-loglevel error -f mov -i pipe:0 -f null -", b"garbage", minute).await.unwrap_err();
        assert_eq!(garbage.exit(), Exit::Internal, "{garbage}");
        let endless = "-loglevel error -f lavfi -i color -f null -";
        assert!(matches!(run(endless, b"", Duration::ZERO).await, Err(FfmpegError::Stalled(0))));
    }

    #[test]
    fn decoding_errors_are_counted() {
        let count = |lines: &[&str]| {
            let mut messages = Messages::default();
            lines.iter().for_each(|line| messages.add((*line).to_owned()));
            messages.damaged
        };
        let of_5 = [
            "[h264 @ 0x5] error while decoding MB 12 3, bytestream -5",
            "file:a.mp4: corrupt decoded frame in stream 0",
            "Last message repeated 2 times",
            "Error while decoding stream #0:1: Invalid data found when processing input",
        ];
        let of_7 = [
            "[vist#0:0/h264 @ 0x5] [dec:h264 @ 0x6] corrupt decoded frame",
            "[vist#0:0/av1 @ 0x5] [dec:libdav1d @ 0x6] Error submitting packet to decoder: Invalid data found",
            "[vist#0:0/av1 @ 0x5] [dec:libdav1d @ 0x6] Decoding error: Invalid data found",
            "Last message repeated 7 times",
        ];
        assert_eq!((count(&of_5), count(&of_7), count(&["Last message repeated 9 times"])), (4, 2, 0));
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

//! Runs ffprobe: on the source, and on published segments.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{process, source::loopback::Input};

use super::{
    ffprobe_json::parse,
    frames,
    limits::MOST_PIXELS,
    media::Media,
    rejection::{ProbeError, oversize, unusable},
    sample_index::{Index, IndexedTrack},
    tracks::media,
};

/// Reading a header takes seconds even over a slow network. A longer time means a file that is made to hang
/// readers.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Time for looking at frames. Usually it takes less than a second.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of ffprobe's output; it prints about 2 KB per track.
const OUTPUT_LIMIT: u64 = 4 << 20;
/// Read interval of the first four packets. Their side data shows whether the file is encrypted.
const PACKETS: &str = "%+#4";

/// Probes the source.
///
/// # Errors
/// The source is not a usable video, or ffprobe fails.
pub(crate) async fn probe(input: &Input) -> Result<Media, ProbeError> {
    let mut command = process::command("ffprobe");
    command
        .args(["-loglevel", "error", "-of", "json", "-show_format", "-show_streams", "-show_chapters"])
        .args(["-show_packets", "-read_intervals", PACKETS])
        // ffprobe decodes the first frames, so it needs the same limit as FFmpeg.
        .args(["-max_pixels", &MOST_PIXELS.to_string()])
        .args(input.arguments());
    let answer = match tokio::time::timeout(TIME_LIMIT, run(command, Bytes::new())).await {
        Ok(answer) => answer.map_err(ProbeError::Run)?,
        Err(_) if matches!(input, Input::Served(_)) => return Err(ProbeError::Slow),
        Err(_) => return Err(unusable("the file's index could not be read within a minute")),
    };
    let Answer { json, messages, status } = answer;
    for line in messages.lines() {
        tracing::debug!("ffprobe: {line}");
    }
    let too_large = too_large(&messages);
    if !status.success() {
        return Err(match (failure(status, &messages), too_large) {
            (ProbeError::Unusable(_), Some((width, height))) => oversize(width, height),
            (error, _) => error,
        });
    }
    if json.len() as u64 >= OUTPUT_LIMIT {
        return Err(unusable("the file claims to have more tracks or chapters than any video has"));
    }
    let media = media(parse(&json).map_err(|error| ProbeError::Answer(error.to_string()))?);
    let is_decoded = |media: &Media| media.video.as_ref().is_some_and(|video| !video.pixel_format.is_empty());
    match too_large {
        Some((width, height)) if !media.as_ref().is_ok_and(is_decoded) => Err(oversize(width, height)),
        _ => media,
    }
}

/// Looks at frames in several places of the source's video track (see [`super::frames`]), and corrects the
/// track's properties. The look is skipped if the sample index has shown that all frames are alike. Whatever
/// cannot be read here will fail while encoding, with its reason.
///
/// # Errors
/// ffprobe is killed or crashes.
pub(crate) async fn look(input: &Input, media: &mut Media, index: Option<&Index>) -> Result<(), ProbeError> {
    let (start_seconds, duration_seconds) = (media.start_seconds, media.duration_seconds);
    let Some(video) = &mut media.video else { return Ok(()) };
    if index.zip(video.id).and_then(|(index, id)| index.track(id)).is_some_and(IndexedTrack::is_uniform) {
        return Ok(());
    }
    let file_size = input.size().await.unwrap_or(0);
    let start_seconds = start_seconds + video.start_seconds;
    let intervals = frames::intervals(&video.codec, file_size, start_seconds, duration_seconds);
    let mut command = process::command("ffprobe");
    command
        .args(["-loglevel", "error", "-of", "json", "-skip_frame", "nokey", "-show_data", "-show_entries"])
        .arg("stream=index,extradata:frame=width,height,sample_aspect_ratio,interlaced_frame")
        .args(["-select_streams", &video.index.to_string(), "-read_intervals", &intervals])
        .args(["-max_pixels", &MOST_PIXELS.to_string()])
        .args(input.arguments());
    let answer = match tokio::time::timeout(LOOK_LIMIT, run(command, Bytes::new())).await {
        Ok(answer) => answer.map_err(ProbeError::Run)?,
        Err(_) => {
            tracing::warn!("looking at the picture took too long, so only its header counts");
            Answer { json: Vec::new(), messages: String::new(), status: ExitStatus::default() }
        }
    };
    if answer.status.signal().is_some() {
        return Err(failure(answer.status, &answer.messages));
    }
    let seen = parse(&answer.json).unwrap_or_default();
    let extradata = seen.streams.first().and_then(|stream| stream.extradata.as_ref());
    frames::apply(video, &seen.frames, extradata);
    if video.changes {
        tracing::info!(width = video.width, height = video.height, "the picture changes its size or shape");
    }
    Ok(())
}

/// Facts about the track in an init segment and the media segments that follow it.
#[derive(Debug)]
pub(crate) struct SegmentFacts {
    /// FFmpeg's name of the codec.
    pub(crate) codec: String,
    /// 0 for audio, as is the height.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// For each packet, whether it is a keyframe.
    pub(crate) keyframes: Vec<bool>,
}

/// Probes an init segment and the media segments that follow it.
///
/// # Errors
/// ffprobe fails, or finds no track.
pub(crate) async fn segments(bytes: Bytes) -> Result<SegmentFacts, ProbeError> {
    let mut command = process::command("ffprobe");
    command.args(["-loglevel", "error", "-of", "json", "-show_packets", "-show_entries"]).args([
        "packet=flags:stream=index,codec_name,width,height",
        "-f",
        "mov",
        "-i",
        "pipe:0",
    ]);
    let Answer { json, messages, status } = run(command, bytes).await.map_err(ProbeError::Run)?;
    if !status.success() {
        return Err(match failure(status, &messages) {
            // The probed segments are the task's own, so a sentence for the uploader would not help.
            ProbeError::Unusable(_) => ProbeError::Answer(messages.trim().to_owned()),
            error => error,
        });
    }
    let output = parse(&json).map_err(|error| ProbeError::Answer(error.to_string()))?;
    let Some(stream) = output.streams.into_iter().next() else {
        return Err(ProbeError::Answer("there is no track".to_owned()));
    };
    Ok(SegmentFacts {
        codec: stream.codec_name.unwrap_or_default(),
        width: stream.width,
        height: stream.height,
        keyframes: output.packets.iter().map(|packet| packet.flags.starts_with('K')).collect(),
    })
}

/// The result of a run of ffprobe.
struct Answer {
    json: Vec<u8>,
    messages: String,
    status: ExitStatus,
}

/// Runs ffprobe with this input on stdin.
async fn run(mut command: Command, input: Bytes) -> std::io::Result<Answer> {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // ffprobe may end before it has read everything; its exit code has the reason.
            let _ = stdin.write_all(&input).await;
        }
        Ok(())
    };
    let (json, messages, ()) = tokio::try_join!(beginning(stdout), beginning(stderr), feed)?;
    let messages = String::from_utf8_lossy(&messages).into_owned();
    Ok(Answer { json, messages, status: child.wait().await? })
}

/// Keeps the first [`OUTPUT_LIMIT`] bytes. Also reads the rest, because a closed pipe would end ffprobe by a
/// signal.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(OUTPUT_LIMIT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// Classifies a failure. Only a working ffprobe can say that a file is not a video.
#[must_use]
pub(super) fn failure(status: ExitStatus, messages: &str) -> ProbeError {
    const BROKEN: [&str; 3] =
        ["error while loading shared libraries", "Unrecognized option", "symbol lookup error"];
    match status.signal() {
        Some(9) => return ProbeError::Killed,
        Some(_) => return ProbeError::Crashed(status),
        None => {}
    }
    if matches!(status.code(), Some(126 | 127)) || BROKEN.iter().any(|words| messages.contains(words)) {
        return ProbeError::Run(std::io::Error::other(messages.trim().to_owned()));
    }
    unusable(uploader_message(messages))
}

/// The picture size that a decoder refused. Only ffprobe's messages have it: `Picture size 8192x8192 exceeds
/// specified max pixel count…`, or `…is invalid` for sizes that no FFmpeg decodes.
#[must_use]
pub(super) fn too_large(messages: &str) -> Option<(u32, u32)> {
    messages.split("Picture size ").skip(1).find_map(|rest| {
        let (width, height) = rest.split(' ').next()?.split_once('x')?;
        let (width, height): (u32, u32) = (width.parse().ok()?, height.parse().ok()?);
        (u64::from(width) * u64::from(height) > MOST_PIXELS).then_some((width, height))
    })
}

/// ffprobe's message as a sentence for the uploader.
fn uploader_message(stderr: &str) -> &'static str {
    if stderr.contains("moov atom not found") {
        "the file is not a video, or its end is missing (was the upload broken off?)"
    } else if stderr.contains("not on whitelist") {
        "the file is not an MP4, QuickTime, Matroska or WebM video, whatever its name says"
    } else if stderr.contains("Cannot allocate memory") || stderr.contains("max_streams") {
        "the file claims to have more tracks or data than any video has"
    } else {
        "the file is not a video, or it is too damaged to read"
    }
}

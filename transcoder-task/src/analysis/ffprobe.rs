//! Runs ffprobe on the source.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{process, source::loopback::Input};

use super::{
    ffprobe_json::parse,
    limits::MOST_PIXELS,
    media::Media,
    rejection::{ProbeError, oversize, unusable},
    tracks::media,
};

/// Reading a header takes seconds even over a slow network. A longer time means a file that is made to hang
/// readers.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of ffprobe's output; it prints about 2 KB per track.
const OUTPUT_LIMIT: u64 = 4 << 20;
/// Packets to read, a few of each track, to detect encryption.
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
        // ffprobe decodes the first frames, so it needs the limit, too.
        .args(["-max_pixels", &MOST_PIXELS.to_string()])
        .args(input.arguments())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ProbeError::Run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let (json, messages) = tokio::try_join!(beginning(stdout), beginning(stderr))?;
        Ok::<_, std::io::Error>((json, messages, child.wait().await?))
    };
    let (json, messages, status) = match tokio::time::timeout(TIME_LIMIT, read).await {
        Ok(answer) => answer.map_err(ProbeError::Run)?,
        Err(_) if matches!(input, Input::Served(_)) => return Err(ProbeError::Slow),
        Err(_) => return Err(unusable("the file's index could not be read within a minute")),
    };
    let messages = String::from_utf8_lossy(&messages);
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
        return Err(unusable("the file claims to hold more tracks or chapters than any video does"));
    }
    let media = media(parse(&json).map_err(|error| ProbeError::Answer(error.to_string()))?);
    let seen = |media: &Media| media.video.as_ref().is_some_and(|video| !video.pixel_format.is_empty());
    match too_large {
        Some((width, height)) if !media.as_ref().is_ok_and(seen) => Err(oversize(width, height)),
        _ => media,
    }
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

/// The size that a decoder refused, and that is missing in ffprobe's output: `Picture size 8192x8192 exceeds
/// specified max pixel count…`, or `…is invalid` for sizes that no FFmpeg decodes.
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
        "the file claims to hold more than any video does"
    } else {
        "the file is not a video, or it is too damaged to read"
    }
}

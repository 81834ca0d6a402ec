//! Runs FFmpeg and publishes the segments that it writes.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use futures::{
    TryFutureExt,
    future::{join_all, try_join_all},
};
use tempfile::NamedTempFile;
use tokio::{net::unix::pipe, sync::mpsc};

use crate::{
    error::TaskError,
    ffmpeg::{
        arguments::{self, Pipe},
        colour,
    },
    package::{stills::Stills, webvtt},
    plan::model::Plan,
    process::{self, Ffmpeg, FfmpegError},
    progress,
    publish::{PublishError, publisher::Publisher},
    store::StoreError,
};

use super::inputs::Pass;

/// Path of the poster in the stream's folder.
pub(super) const POSTER: &str = "images/poster.jpg";
/// Capacity of the channel in which stills wait for the next checkpoint: as many as the storyboard keeps.
const STILLS_BUFFER: usize = 100;

/// FFmpeg's output other than segments.
pub(super) struct Encoded {
    pub(super) stills: Option<Stills>,
    /// In the plan's order.
    pub(super) subtitles: Vec<webvtt::TextTrack>,
    /// Number of decoding errors, each at one place of the source.
    pub(super) damaged: u64,
}

/// Runs the FFmpeg processes of a plan to their end.
///
/// # Errors
/// FFmpeg fails or stalls, its output cannot be published, the source cannot be read to its end, or the task
/// is terminated.
pub(super) async fn encode(pass: &Pass<'_>, publisher: &mut Publisher) -> Result<Encoded, TaskError> {
    let Pass { attempt, plan, resume_point, input } = *pass;
    let (progress_state, stop) = (attempt.progress_state, attempt.stop);
    let cube_file = write_cube(plan).await?;
    let cube = cube_file.as_ref().map_or_else(String::new, |file| file.path().display().to_string());
    let (mut ffmpegs, mut pipes) = (Vec::new(), Vec::new());
    for process in arguments::processes(plan, resume_point) {
        let arguments =
            arguments::arguments(plan, &process, &input.arguments(), &cube, process::FIRST_PIPE_FD);
        tracing::debug!("ffmpeg {}", arguments.join(" "));
        let (ffmpeg, receivers) = Ffmpeg::spawn(&arguments, process.pipes.len())?;
        ffmpegs.push(ffmpeg);
        pipes.extend(process.pipes.into_iter().zip(receivers));
    }
    // Sorts renditions into the plan's order, and the encoded prefix before its rung.
    pipes.sort_by_key(|(pipe, _)| *pipe);
    let (mut encoded_prefix, mut renditions) = (None, Vec::new());
    let (mut subtitle_pipes, mut stills_pipe, mut progress_pipe) = (Vec::new(), None, None);
    for (pipe, receiver) in pipes {
        match pipe {
            Pipe::Progress => progress_pipe = Some(receiver),
            Pipe::EncodedPrefix => encoded_prefix = Some(receiver),
            Pipe::Video(_) | Pipe::Audio(_) => renditions.push((encoded_prefix.take(), receiver)),
            Pipe::Subtitles(_) => subtitle_pipes.push(receiver),
            Pipe::Stills => stills_pipe = Some(receiver),
        }
    }
    let follow_progress = async {
        match progress_pipe {
            Some(pipe) => Ok(progress::follow(pipe, progress_state).await?),
            None => Ok(()),
        }
    };
    let earlier_stills = publisher.stills();
    let (stills_sender, stills_receiver) = mpsc::channel(STILLS_BUFFER);
    let outputs = async {
        tokio::try_join!(
            publisher.stream(renditions, stills_receiver, progress_state, stop).err_into(),
            read_stills(stills_pipe, earlier_stills, stills_sender).err_into(),
            read_subtitles(subtitle_pipes, plan).err_into(),
            follow_progress
        )
    };
    // The time for the other processes after the end of the first one. They copy, or encode little, so they
    // run faster than real time.
    let patience = progress::STALL_LIMIT + Duration::from_secs_f64(plan.duration_seconds.max(0.0));
    // After a failure of one process the others are stopped: a stream needs all of them.
    let ends = async { Ok(process::wait_for_all(&mut ffmpegs, patience).await?) };
    match tokio::try_join!(outputs, ends) {
        Ok((((), stills, subtitles, ()), damaged)) => Ok(Encoded { stills, subtitles, damaged }),
        Err(error) => {
            let ended = join_all(ffmpegs.into_iter().map(Ffmpeg::stop)).await;
            // The error of a killed process comes first, because the other processes may have failed as a
            // result.
            let causes = ended.into_iter().filter_map(Result::err);
            let cause = causes.min_by_key(|cause| !matches!(cause, FfmpegError::Killed));
            match (error, cause) {
                // The output is incomplete because FFmpeg failed: FFmpeg's own error has the reason.
                (
                    TaskError::Publish(PublishError::Output { .. } | PublishError::Mismatch(_)),
                    Some(cause),
                ) => Err(cause.into()),
                (error, _) => Err(error),
            }
        }
    }
}

/// Writes the colour lookup table for FFmpeg, if the plan needs one.
///
/// # Errors
/// The temporary file cannot be written.
async fn write_cube(plan: &Plan) -> Result<Option<NamedTempFile>, TaskError> {
    let Some(source) = plan.picture.as_ref().map(|picture| picture.colour) else { return Ok(None) };
    // Computing the table takes half a second of CPU time.
    let write = tokio::task::spawn_blocking(move || {
        let Some(cube) = colour::cube(source) else { return Ok(None) };
        let mut file = tempfile::Builder::new().suffix(".cube").tempfile()?;
        file.write_all(cube.as_bytes())?;
        Ok(Some(file))
    });
    let failed = |error| StoreError::File { path: std::env::temp_dir().display().to_string(), error };
    Ok(write.await.unwrap_or_else(|panic| Err(panic.into())).map_err(failed)?)
}

/// # Errors
/// FFmpeg's pipe cannot be read.
async fn read_stills(
    pipe: Option<pipe::Receiver>,
    earlier: Stills,
    sender: mpsc::Sender<Bytes>,
) -> Result<Option<Stills>, PublishError> {
    let Some(pipe) = pipe else { return Ok(None) };
    let mut sender = Some(sender);
    let stills = earlier.read(pipe, |jpeg| {
        // A gap in the stills would break the checkpoint's numbering, so sending ends at the first failure.
        if sender.as_ref().is_some_and(|sender| sender.try_send(jpeg.clone()).is_err()) {
            sender = None;
        }
    });
    let failed =
        |error: std::io::Error| PublishError::Output { rendition: POSTER.into(), reason: error.to_string() };
    Ok(Some(stills.await.map_err(failed)?))
}

/// # Errors
/// One of FFmpeg's pipes cannot be read.
async fn read_subtitles(
    pipes: Vec<pipe::Receiver>,
    plan: &Plan,
) -> Result<Vec<webvtt::TextTrack>, PublishError> {
    let failed = |error: std::io::Error| PublishError::Output {
        rendition: "subtitles".into(),
        reason: error.to_string(),
    };
    let script = |is_ass: bool| if is_ass { webvtt::Script::Ass } else { webvtt::Script::WebVtt };
    let tracks = pipes.into_iter().zip(&plan.subtitles);
    let tracks = tracks.map(|(pipe, track)| webvtt::TextTrack::read(pipe, script(track.is_ass)));
    try_join_all(tracks).await.map_err(failed)
}

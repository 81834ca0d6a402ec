//! Verifies a stream whose segments are all published, and publishes the rest of it.

use futures::TryFutureExt;

use crate::{
    error::TaskError,
    ffmpeg::arguments,
    package::{stills::Stills, storyboard::SHEET_NAME},
    plan::model::Plan,
    publish::{publisher::Publisher, verify},
};

use super::{
    encode::{Encoded, POSTER},
    inputs::Attempt,
    report::ReportDraft,
};

const STORYBOARD: &str = "images/storyboard.vtt";

/// Verifies segments, then publishes images, subtitles, MP4 files and final playlists.
///
/// # Errors
/// The segments do not match the plan or lack too much of the source, FFmpeg cannot make the storyboard, or
/// the store fails.
pub(super) async fn finish(
    attempt: &Attempt<'_>,
    plan: &Plan,
    encoded: Encoded,
    publisher: &mut Publisher,
    draft: &mut ReportDraft,
) -> Result<(), TaskError> {
    if encoded.damaged > 0 {
        draft.warnings.push(format!(
            "the file is damaged: {} places could not be fully decoded and show faults",
            encoded.damaged
        ));
    }
    draft.warnings.extend(verify::segments(plan, publisher.tracks())?);
    publisher.drop_empty();
    if verify::is_picture_short(plan, publisher.tracks()) {
        publisher.drop_audio_after_video();
    }
    let read_back = verify::read_back(&attempt.context.store, publisher.tracks());
    let images = async {
        match &encoded.stills {
            Some(stills) => put_images(plan, stills, publisher).await,
            None => Ok(()),
        }
    };
    let (verified, ()) = tokio::try_join!(read_back.err_into::<TaskError>(), images)?;
    publisher.verified(verified);
    for (rendition, track) in plan.subtitles.iter().zip(encoded.subtitles) {
        if track.truncated {
            let name = &rendition.name;
            draft.warnings.push(format!("subtitle track {name} exceeds the limits for text and was cut"));
        }
        if !track.is_empty() {
            publisher.put_subtitles(rendition.clone(), &track).await?;
        }
    }
    for warning in &draft.warnings {
        tracing::warn!("{warning}");
    }
    draft.renditions = publisher.finish(attempt.progress_state).await?;
    Ok(())
}

/// # Errors
/// FFmpeg cannot make the storyboard, or the store fails.
async fn put_images(plan: &Plan, stills: &Stills, publisher: &Publisher) -> Result<(), TaskError> {
    if let Some(poster) = stills.poster() {
        publisher.put_in_folder(POSTER, "image/jpeg", poster).await?;
    }
    let size = arguments::still_size(&plan.rungs);
    let end_seconds = publisher.tracks().first().map_or(0.0, |track| track.timeline.end_seconds());
    if let Some(storyboard) = stills.storyboard(size, end_seconds).await? {
        let sheet = format!("images/{SHEET_NAME}");
        publisher.put_in_folder(&sheet, "image/jpeg", storyboard.sheet).await?;
        publisher.put_in_folder(STORYBOARD, "text/vtt", storyboard.vtt.into()).await?;
    }
    Ok(())
}

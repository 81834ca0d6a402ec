//! Publishes a progressive MP4 file for each rung.

use std::cell::Cell;

use vidstreamx_job::{self as job, RenditionKind};

use crate::{package::progressive, progress::ProgressState, store::Store};

use super::{
    PublishError,
    track::{Planned, Track},
};

/// Writes one progressive file per rung, with every stereo audio track. Without rungs, writes one file with
/// the audio.
///
/// # Errors
/// The segments do not fit together, or the store fails.
pub(super) async fn write_files(
    store: &Store,
    folder: &str,
    tracks: &[Track],
    progress_state: &ProgressState,
) -> Result<Vec<job::Rendition>, PublishError> {
    let part = |track: &Track, language: Option<String>, label: &str| progressive::Part {
        folder: track.folder.clone(),
        segments: track.timeline.segments.len(),
        language,
        label: label.to_owned(),
    };
    let mut audio = Vec::new();
    let mut rungs = Vec::new();
    for track in tracks {
        match &track.rendition {
            Planned::Video(rung) => rungs.push((rung.name.as_str(), part(track, None, ""), track)),
            Planned::Audio(rendition) if rendition.channels <= 2 => {
                audio.push((part(track, rendition.language.clone(), &rendition.label), track));
            }
            Planned::Audio(_) => {}
        }
    }
    let bytes = |track: &Track| track.timeline.segments.iter().map(|segment| segment.bytes).sum::<u64>();
    let audio_bytes: u64 = audio.iter().map(|(_, track)| bytes(track)).sum();
    let rung_bytes: u64 = rungs.iter().map(|(_, _, track)| bytes(track)).sum();
    // To write a file, each of its segments is read twice. The audio is in every file.
    let all = 2 * (rung_bytes + audio_bytes * rungs.len().max(1) as u64);
    let read = Cell::new(0);
    let read_bytes = |bytes: u64| {
        read.set(read.get() + bytes);
        progress_state.reached(read.get() as f64 / all as f64);
    };
    let mut files = Vec::with_capacity(rungs.len());
    let parts = |rung: &[progressive::Part]| {
        rung.iter().cloned().chain(audio.iter().map(|(part, _)| part.clone())).collect::<Vec<_>>()
    };
    if rungs.is_empty()
        && let Some((_, track)) = audio.first()
    {
        files.push(write_file(store, folder, tracks, "audio", &parts(&[]), track, read_bytes).await?);
    }
    for (name, rung, track) in rungs {
        files.push(write_file(store, folder, tracks, name, &parts(&[rung]), track, read_bytes).await?);
    }
    Ok(files)
}

async fn write_file(
    store: &Store,
    folder: &str,
    tracks: &[Track],
    name: &str,
    parts: &[progressive::Part],
    track: &Track,
    read_bytes: impl Fn(u64),
) -> Result<job::Rendition, PublishError> {
    let path = format!("{folder}/mp4/{name}.mp4");
    let file = progressive::remux(store, parts, &path, read_bytes).await?;
    let of_parts = |track: &&Track| parts.iter().any(|part| part.folder == track.folder);
    let mut codecs: Vec<_> = tracks.iter().filter(of_parts).map(|track| track.codecs.as_str()).collect();
    codecs.dedup();
    let report = track.report();
    let seconds = report.duration_seconds.max(f64::MIN_POSITIVE);
    Ok(job::Rendition {
        name: name.to_owned(),
        kind: RenditionKind::Mp4,
        codecs: codecs.join(","),
        segments: 0,
        bytes: file.bytes,
        average_bandwidth: (file.bytes as f64 * 8.0 / seconds).ceil() as u64,
        verified: None,
        ..report
    })
}

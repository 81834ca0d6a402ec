//! The progress of the task: a bar or log lines for people, and the status object in S3 for programs.
//!
//! The work reports to the [`state`], which neither waits nor fails. [`ffmpeg_progress`] reads FFmpeg's own
//! progress into it. [`display`] shows it to people, and [`status_writer`] writes it to S3, each at its own
//! rate.
//!
//! Other rooms use [`ProgressState`], [`follow`], [`show`] and [`Writer`].

mod display;
mod ffmpeg_progress;
mod state;
mod status_writer;

pub(crate) use display::show;
pub(crate) use ffmpeg_progress::{STALL_LIMIT, follow};
pub(crate) use state::ProgressState;
pub(crate) use status_writer::Writer;

#[cfg(test)]
mod tests;

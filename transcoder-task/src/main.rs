//! `transcoder-task`: reads one video, transcodes it into an adaptive stream, publishes it, exits.
//!
//! In the order the data flows: [`settings`] → [`source`] (in chunks by [`reading`], by FFmpeg through an [`input`]) →
//! [`probe`] and [`index`] → [`plan`] (with [`boundaries`], [`loudness`]) → [`resume`] (from a [`checkpoint`]) →
//! [`command`] (with [`colour`]) → [`ffmpeg`] → [`cmaf`] → [`publish`] (to a [`store`]; [`playlist`], [`dash`],
//! [`images`], [`subtitles`], [`mp4`]) → [`verify`]; [`task`] ties them together.

mod boundaries;
mod checkpoint;
mod cmaf;
mod colour;
mod command;
mod dash;
mod error;
mod ffmpeg;
mod images;
mod index;
mod input;
mod language;
mod loudness;
mod mp4;
mod plan;
mod playlist;
mod probe;
mod profile;
mod progress;
mod publish;
mod reading;
mod resume;
mod s3;
mod settings;
mod source;
mod store;
mod subtitles;
mod task;
mod tone;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match settings::Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return settings::usage_exit(&error),
    };
    flags.init_logging();
    // FFmpeg runs as the same user: it must not read credentials out of this process.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("this process's memory stays readable to FFmpeg: {error}");
    }
    let exit = match settings::Settings::from_flags(flags) {
        Ok(settings) => task::run(settings).await,
        Err(error) => {
            tracing::error!("{error}");
            vidstreamx_job::Exit::Misconfigured
        }
    };
    ExitCode::from(exit.code())
}

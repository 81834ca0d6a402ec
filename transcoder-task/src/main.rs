//! `transcoder-task`: reads one video, transcodes it into an adaptive stream, publishes it, exits.
//!
//! In the order the data flows: [`settings`] → [`source`] (in chunks by [`reading`], by FFmpeg through an [`input`]) →
//! [`probe`] and [`index`] → [`plan`] (with [`boundaries`], [`loudness`]) → [`resume`] (from a [`checkpoint`]) →
//! [`command`] (with [`colour`]) → [`ffmpeg`] → [`cmaf`] → [`publish`] (to a [`store`]; [`playlist`], [`dash`],
//! [`images`], [`subtitles`], [`mp4`]) → [`verify`]; [`task`] ties them together.

mod analysis;
mod config;
mod error;
mod ffmpeg;
mod package;
mod plan;
mod process;
mod progress;
mod publish;
mod source;
mod store;
mod task;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use config::settings::{Flags, Settings, usage_exit};

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return usage_exit(&error),
    };
    flags.init_logging();
    // FFmpeg runs as the same user: it must not read credentials out of this process.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("this process's memory stays readable to FFmpeg: {error}");
    }
    let exit = match Settings::from_flags(flags) {
        Ok(settings) => task::run(settings).await,
        Err(error) => {
            tracing::error!("{error}");
            vidstreamx_job::Exit::Misconfigured
        }
    };
    ExitCode::from(exit.code())
}

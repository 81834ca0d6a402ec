//! `transcoder-task`: reads one video, transcodes it into an adaptive stream, publishes it, exits.
//!
//! [`task`] runs all steps. A video passes through the rooms in this order: [`config`] → [`source`] →
//! [`analysis`] → [`plan`] → [`ffmpeg`] → [`package`] → [`publish`] → [`store`]. [`process`] is the one place
//! that starts FFmpeg and ffprobe; [`progress`] shows how far the task is; [`error`] maps every failure to an
//! exit code.
//!
//! A room imports only rooms before it in this list: `config`, `store`, `process`, `source`, `analysis`,
//! `plan`, `progress`, `ffmpeg`, `package`, `publish`, `error`, `task`.

mod analysis;
mod config;
mod error;
mod ffmpeg;
#[cfg(test)]
mod fixtures;
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
    // FFmpeg runs as the same user. The call keeps it from reading credentials in this process's memory.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("this process's memory cannot be hidden from FFmpeg: {error}");
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

//! The consumer: from a message in the queue to a finished video.
//!
//! The rooms in the order a video meets them: `cli` starts the program with its `config` and its
//! `services`; `intake` receives messages and turns them into jobs; `reconcile` takes each job through
//! its record; `inspect` reads the upload's header, by which `sizing` chooses the task's size. `aws`
//! makes the calls, `metrics` counts, and `http` serves the counts and the health. `commands` holds the
//! other commands of the program.
//!
//! Imports between rooms run one way, from the end of this list to its start: `aws`, `inspect`, `sizing`,
//! `config`, `metrics`, `services`, `reconcile`, `intake`, `http`, `commands`, `cli`. This is a library only
//! for the tests in `consumer/tests`.

pub mod aws;
pub mod cli;
mod commands;
mod config;
#[cfg(test)]
mod fixtures;
mod http;
pub mod inspect;
pub mod intake;
pub mod metrics;
pub mod reconcile;
pub mod services;
pub mod sizing;

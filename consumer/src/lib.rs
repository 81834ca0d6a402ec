//! The consumer: receives upload events and runs a transcoder task for each video.
//!
//! The modules in the order of a video's way through the program: [`cli`] starts the program with its
//! [`config`] and its [`services`]. [`intake`] receives messages and turns them into jobs. [`reconcile`] runs
//! each job by its record. [`inspect`] reads the upload's header, by which [`sizing`] chooses the task's
//! size. [`aws`] calls AWS, [`metrics`] counts, and [`http`] serves metrics and health. [`commands`] has the
//! other commands.
//!
//! A module imports only modules before it in this list: `aws`, `inspect`, `sizing`, `config`, `metrics`,
//! `services`, `reconcile`, `intake`, `http`, `commands`, `cli`. The crate is a library only for the tests in
//! `consumer/tests`.

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

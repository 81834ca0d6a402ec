//! Hostile, damaged and foreign files. The program must end within limits of time and memory, and must give a
//! reason without technical terms. `--nocapture` prints a table.
//!
//! [`cases`] runs the program on files; [`boxes`] changes MP4 files.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "prints the table")]

mod boxes;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod damage;
mod foreign;
mod headers;
mod references;
mod repairs;
mod tables;

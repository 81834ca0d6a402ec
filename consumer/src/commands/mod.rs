//! The commands beside `run`: [`check`] the settings against AWS, show the [`history`] of videos, [`submit`]
//! uploads to the queue, [`redrive`] dead letters. [`format`](mod@format) turns values into text for a
//! terminal, [`progress`] shows that a long command is at work.

pub mod check;
pub mod format;
pub mod history;
pub mod progress;
pub mod redrive;
pub mod submit;

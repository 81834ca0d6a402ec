//! The commands beside `run`: [`check`] the settings against AWS, show the [`history`] of videos, [`submit`]
//! uploads to the queue, [`redrive`] dead letters. [`format`](mod@format) turns values into text for a
//! terminal, [`progress`] shows that a long command is at work.

pub(crate) mod check;
pub(crate) mod format;
pub(crate) mod history;
pub(crate) mod progress;
pub(crate) mod redrive;
pub(crate) mod submit;

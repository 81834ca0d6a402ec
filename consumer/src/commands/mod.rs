//! The commands other than `run`: [`check`] tests the settings against AWS, [`history`] shows videos,
//! [`submit`] sends uploads to the queue, and [`redrive`] moves dead letters back. [`format`](mod@format)
//! formats values for a terminal, and [`progress`] shows a progress bar.

pub(crate) mod check;
mod format;
pub(crate) mod history;
mod progress;
pub(crate) mod redrive;
pub(crate) mod submit;

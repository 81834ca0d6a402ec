//! The commands other than `run`: [`check`] tests the settings against AWS, [`history`] shows videos,
//! [`submit`] sends uploads to a queue, and [`redrive`] moves dead letters back. [`pause`] stops all launches
//! and continues them, and [`cancel`] ends jobs. [`delete`] removes everything about one upload, and
//! [`prune`] what nothing uses any more; both are built on [`removal`]. [`format`](mod@format) formats values
//! for a terminal, and [`progress`] shows a progress bar.

pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod delete;
mod format;
pub(crate) mod history;
pub(crate) mod pause;
mod progress;
pub(crate) mod prune;
pub(crate) mod redrive;
pub(crate) mod removal;
pub(crate) mod submit;

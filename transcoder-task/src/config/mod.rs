//! Configuration of the task: [`settings`] say what to transcode, the [`profile`] says how.
//!
//! `main` reads the settings for `task`. Other rooms get the validated profile.

pub(crate) mod profile;
pub(crate) mod settings;

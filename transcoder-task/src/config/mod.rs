//! Configuration of the task: [`settings`] say what to transcode, the [`profile`] says how.

pub(crate) mod profile;
pub(crate) mod settings;

//! Delete: removes everything about one upload, for good.
//!
//! The order makes a repetition complete a deletion that a crash ended. The source goes first, so that no
//! event starts the video again meanwhile. The stable address follows, so that no viewer gets a playlist
//! whose segments are gone. Records go last, because they tell which jobs exist.
//!
//! [`arguments`] names the upload that [`command`] deletes. [`jobs`] finds its jobs and refuses to continue
//! if one of them runs. Which objects belong to an upload is decided in [`removal`](super::removal).

mod arguments;
mod command;
mod jobs;

pub(crate) use arguments::Arguments;
pub(crate) use command::{DeleteError, delete};

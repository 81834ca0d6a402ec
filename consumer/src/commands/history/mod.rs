//! The history of videos: a list, or one job with all its attempts.
//!
//! It reads the records in the output bucket, so it works anywhere, without a running consumer, and long
//! after ECS has forgotten the tasks.
//!
//! [`arguments`] selects the records that [`command`] shows. [`read`] reads them, with the progress of
//! running jobs; [`list`] formats a line per video, and [`page`] all about one job. [`since`] parses points
//! in time.

mod arguments;
mod command;
mod list;
mod page;
pub(crate) mod read;
#[cfg(test)]
mod samples;
mod since;

pub(crate) use arguments::Arguments;
pub(crate) use command::{HistoryError, show};

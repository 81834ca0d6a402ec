//! Submits existing objects of the upload bucket to the queue, as if they had just been uploaded.
//!
//! The events are the same as S3's, so the consumer, its limits and its dead-letter queue treat these videos
//! like others. The job id identifies a video that is already done.
//!
//! [`arguments`] selects the [`objects`] that [`command`] submits.

mod arguments;
mod command;
pub(crate) mod objects;

pub(crate) use arguments::Arguments;
pub(crate) use command::{SubmitError, submit};

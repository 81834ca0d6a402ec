//! The source of a job, and access to it.
//!
//! [`object`] pins one content of an S3 object and reads ranges of it. [`prefetch`] reads it in chunks, ahead
//! of sequential readers. [`loopback`] serves it to FFmpeg over HTTP; its [`loopback::Input`] also covers
//! local files.
//!
//! Other rooms open a [`object::PinnedObject`], and read through the [`loopback::Input`].

pub(crate) mod loopback;
pub(crate) mod object;
mod prefetch;

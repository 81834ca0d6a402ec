//! The source of a job, and access to it.
//!
//! [`object`] pins the content of an S3 object and reads byte ranges of it. [`prefetch`] reads the object in
//! chunks, ahead of sequential readers. [`loopback`] serves the object to FFmpeg over HTTP; its
//! [`loopback::Input`] also covers local files.
//!
//! Other rooms open a [`object::PinnedObject`], and read through the [`loopback::Input`].

pub(crate) mod loopback;
pub(crate) mod object;
mod prefetch;

//! Publication of a stream.
//!
//! The [`publisher`] owns playlists and checkpoint. It runs an [`uploader`] for each rendition, and a
//! [`track`] records what that uploader has published. [`lockstep`] keeps copied rungs from running ahead.
//! The publisher also writes [`manifests`] and [`mp4_files`], and puts the stream at its [`stable_address`].
//! A [`checkpoint`] holds what later attempts need, and [`recovery`] decides where they resume. [`verify`]
//! checks the stream against the plan before it is complete.
//!
//! `task` finds the segments of an earlier attempt, runs the [`publisher::Publisher`], and verifies its
//! tracks. Publication and verification fail with a [`PublishError`]; reads and writes of checkpoints,
//! manifests and single objects fail only with the store's error.

pub(crate) mod checkpoint;
mod error;
mod lockstep;
mod manifests;
mod mp4_files;
pub(crate) mod publisher;
pub(crate) mod recovery;
pub(crate) mod stable_address;
pub(crate) mod track;
mod uploader;
pub(crate) mod verify;

pub(crate) use error::PublishError;

//! The output: objects in a bucket of S3, or files in a local folder.
//!
//! [`Store`] writes and reads objects by their paths below one prefix ([`bucket`], with large objects in
//! parts by [`multipart`]) or one [`folder`]. Each object has a [`CachePolicy`] for its headers and a [`Tag`]
//! that identifies its content. [`StatusObject`] is the one object outside that prefix: the task's progress.
//! [`s3`] sets up the client, also for reading the source, and classifies its errors.

mod bucket;
mod cache_policy;
mod error;
mod folder;
mod multipart;
mod output;
pub(crate) mod s3;
mod status_object;
mod tag;

pub(crate) use bucket::Bucket;
pub(crate) use cache_policy::{CachePolicy, JSON, PLAYLIST};
pub(crate) use error::StoreError;
pub(crate) use output::Store;
pub(crate) use s3::S3Error;
pub(crate) use status_object::StatusObject;
pub(crate) use tag::Tag;

#[cfg(test)]
mod tests;

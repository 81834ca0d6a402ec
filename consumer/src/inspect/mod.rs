//! The inspection of an upload before a task is paid for.
//!
//! `uploads` is the face to the reconciler. An `inspection` reads an upload in at most three small reads:
//! by its `file_type` it may be no video at all; else a `header_walk` collects the `media_facts` that
//! decide the task's size.

mod file_type;
pub mod header_walk;
pub mod inspection;
pub mod media_facts;
pub mod uploads;

#[cfg(test)]
mod samples;

pub use inspection::Inspection;
pub use media_facts::MediaFacts;
pub use uploads::{Presence, S3Uploads, Uploads};

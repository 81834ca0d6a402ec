//! The inspection of an upload before a task is paid for.
//!
//! [`uploads`] is the interface for the reconciler. An [`inspection`] needs at most three small reads of an
//! upload. It rejects an upload by its [`file_type`]; otherwise a [`header_walk`] collects the
//! [`media_facts`] by which the task's size is chosen.

mod file_type;
mod header_walk;
mod inspection;
pub(crate) mod media_facts;
mod uploads;

#[cfg(test)]
mod samples;

pub use inspection::Inspection;
pub use media_facts::MediaFacts;
pub use uploads::{Presence, S3Uploads, Uploads};

//! The inspection of an upload before a task is paid for.
//!
//! [`uploads`] is the face to the reconciler; it reads an upload's [`header`] in a few small reads.

pub mod header;
pub mod uploads;

pub use header::{Inspection, MediaFacts};
pub use uploads::{Presence, S3Uploads, Uploads};

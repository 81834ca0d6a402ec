//! Values that many unit tests need.

use vidstreamx_job::{Job, Source};

/// An upload of nine bytes without versions.
pub(crate) fn source(key: &str) -> Source {
    Source {
        bucket: "uploads".parse().unwrap(),
        key: key.parse().unwrap(),
        version_id: None,
        etag: Some("e".into()),
        size: Some(9),
    }
}

/// The job of such an upload.
pub(crate) fn job(key: &str) -> Job {
    Job::new(source(key), "streams".parse().unwrap(), "default".into())
}

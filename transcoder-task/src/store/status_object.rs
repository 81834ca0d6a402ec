//! An object that the task rewrites every few seconds.

use aws_sdk_s3::{Client, config, config::retry::RetryConfig, primitives::ByteStream};
use bytes::Bytes;
use vidstreamx_job::BucketName;

use super::{
    cache_policy::JSON,
    s3::{S3Error, WRITE, uri},
};

/// A JSON object in S3 that is rewritten often and outdated soon.
#[derive(Debug, Clone)]
pub(crate) struct StatusObject {
    pub(crate) client: Client,
    pub(crate) bucket: BucketName,
    /// The full key.
    pub(crate) key: String,
}

impl StatusObject {
    /// Writes the object without retries: the next write replaces a failed one. The client has one retry
    /// budget for all calls, and that budget is reserved for the stream's objects.
    ///
    /// # Errors
    /// Every failure of the single attempt.
    pub(crate) async fn put(&self, json: Bytes) -> Result<(), S3Error> {
        let once = config::Builder::new().retry_config(RetryConfig::disabled());
        self.client
            .put_object()
            .bucket(self.bucket.as_str())
            .key(&self.key)
            .content_type(JSON)
            .cache_control("no-cache")
            .body(ByteStream::from(json))
            .customize()
            .config_override(once)
            .send()
            .await
            .map_err(|error| S3Error::new(WRITE, uri(&self.bucket, &self.key), &error))?;
        Ok(())
    }
}

//! Arguments of the command `delete`.

use clap::Args;
use vidstreamx_job::{InvalidLocation, ObjectKey};

use crate::config::BucketSettings;

/// The upload to delete.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// The upload's exact key, or s3://BUCKET/KEY with the upload bucket
    #[arg(value_name = "KEY")]
    key: ObjectKey,

    /// Delete the upload itself too, with all its versions
    #[arg(long)]
    pub source: bool,

    /// Only show how many object versions would be deleted, and their size
    #[arg(long)]
    pub dry_run: bool,

    /// The buckets.
    #[command(flatten)]
    pub settings: BucketSettings,
}

impl Arguments {
    /// The upload's key.
    ///
    /// # Errors
    /// There is no key after the bucket.
    pub(super) fn key(&self) -> Result<ObjectKey, InvalidLocation> {
        let prefix = format!("s3://{}/", self.settings.upload_bucket);
        self.key.as_str().strip_prefix(&prefix).map_or_else(|| Ok(self.key.clone()), str::parse)
    }
}

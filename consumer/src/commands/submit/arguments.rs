//! Arguments of the command `submit`.

use clap::Args;
use vidstreamx_job::S3Uri;

use crate::config::SubmitSettings;

/// The objects to submit.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// An object of any name, or a prefix that ends in /: all objects below it whose names end in one of
    /// .mp4, .MP4, .mov, .MOV, .m4v
    #[arg(value_name = "s3://BUCKET/KEY | s3://BUCKET/PREFIX/")]
    pub objects: S3Uri,

    /// Restart videos that have ended, even if they are done. Each run of this command transcodes EVERY ONE
    /// of them again and costs money again. Running videos are left alone
    #[arg(long)]
    pub force: bool,

    /// Only list the objects that would be submitted
    #[arg(long)]
    pub dry_run: bool,

    /// The queue.
    #[command(flatten)]
    pub settings: SubmitSettings,
}

//! Arguments of the command `prune`.

use clap::Args;

use crate::config::BucketSettings;

/// What to remove.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Also remove streams and records of videos that were done and that a newer upload of the same key
    /// replaced more than this number of days ago. Viewers who began before that lose the old stream
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    pub superseded_for: Option<u16>,

    /// Only show how many object versions would be removed, and their size
    #[arg(long)]
    pub dry_run: bool,

    /// The buckets.
    #[command(flatten)]
    pub settings: BucketSettings,
}

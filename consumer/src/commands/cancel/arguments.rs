//! Arguments of the command `cancel`.

use clap::{Args, builder::NonEmptyStringValueParser};
use vidstreamx_job::{JobId, ObjectKey, S3Uri};

use crate::{commands::format, config::BucketSettings};

/// The jobs to cancel.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Key of an upload, whose running jobs are cancelled, or the id of one job
    #[arg(value_name = "KEY | s3://BUCKET/KEY | JOB ID", value_parser = NonEmptyStringValueParser::new())]
    pub name: String,

    /// Leave what the task has published. Otherwise the incomplete stream is deleted, and the stable address
    /// shows the stream that it showed before
    #[arg(long)]
    pub keep_stream: bool,

    /// The consumers' profile. It is a part of the id of a job that no consumer has seen yet
    #[arg(long, env = "VIDSTREAMX_PROFILE", hide_env_values = true, default_value = "default", value_parser = NonEmptyStringValueParser::new())]
    pub profile: String,

    /// The buckets.
    #[command(flatten)]
    pub settings: BucketSettings,
}

/// What the argument names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// All jobs of an upload.
    Key(ObjectKey),
    /// One job.
    Job(JobId),
}

impl Arguments {
    /// The jobs that the argument names. A key that looks like a job id or a URI must be given as a URI.
    ///
    /// # Errors
    /// It is no key, or of another bucket. Holds a sentence.
    pub(super) fn target(&self) -> Result<Target, String> {
        let name = format::clean(&self.name);
        if let Ok(job) = self.name.parse() {
            return Ok(Target::Job(job));
        }
        let key = if self.name.starts_with("s3://") {
            let uri: S3Uri = self.name.parse().map_err(|error| format!("{name}: {error}"))?;
            if uri.bucket != self.settings.upload_bucket {
                let expected = &self.settings.upload_bucket;
                return Err(format!("{name}: the upload bucket is {expected} (VIDSTREAMX_UPLOAD_BUCKET)"));
            }
            uri.path
        } else {
            self.name.clone()
        };
        key.parse().map(Target::Key).map_err(|error| format!("{name}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_is_a_job_and_everything_else_is_a_key() {
        let target = |name: &str| {
            let settings = BucketSettings {
                upload_bucket: "uploads".parse().unwrap(),
                output_bucket: "streams".parse().unwrap(),
            };
            let profile = "default".to_owned();
            Arguments { name: name.to_owned(), keep_stream: false, profile, settings }.target()
        };
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(target(id), Ok(Target::Job(id.parse().unwrap())));
        assert_eq!(target(&format!("s3://uploads/{id}")), Ok(Target::Key(id.parse().unwrap())));
        assert_eq!(target("films/a.mp4"), Ok(Target::Key("films/a.mp4".parse().unwrap())));
        assert!(target("s3://elsewhere/a.mp4").unwrap_err().contains("VIDSTREAMX_UPLOAD_BUCKET"));
        assert!(target("s3://uploads/").is_err());
    }
}

//! The job, and its encoding as environment variables of a container.

use serde::{Deserialize, Serialize};

use crate::{
    identity::JobId,
    layout::Layout,
    location::{BucketName, InvalidLocation, ObjectKey},
};

/// One content of one object in the upload bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The upload bucket.
    pub bucket: BucketName,
    /// The object's key, decoded.
    pub key: ObjectKey,
    /// The version id, in versioned buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The ETag without quotes, as in S3's events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Source {
    /// The version id, or else the ETag. It distinguishes contents of the same key.
    #[must_use]
    pub fn content(&self) -> &str {
        self.version_id.as_deref().or(self.etag.as_deref()).unwrap_or_default()
    }
}

/// The work of one transcoder task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Hash of source and profile.
    pub id: JobId,
    /// The upload to read.
    pub source: Source,
    /// The bucket to write to. The key prefix follows from the source's key.
    pub output: BucketName,
    /// The profile's name.
    pub profile: String,
}

impl Job {
    /// A job whose id follows from source and profile.
    #[must_use]
    pub fn new(source: Source, output: BucketName, profile: String) -> Self {
        let id = JobId::new(&source.bucket, &source.key, source.content(), &profile);
        Self { id, source, output, profile }
    }

    /// The keys of this job's objects in the output bucket.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(&self.source.key, &self.id)
    }

    /// The job as environment variables for a container override.
    #[must_use]
    pub fn to_env(&self) -> Vec<(&'static str, String)> {
        let source = &self.source;
        let mut variables = vec![
            (env::JOB_ID, self.id.to_string()),
            (env::SOURCE_BUCKET, source.bucket.to_string()),
            (env::SOURCE_KEY, source.key.to_string()),
            (env::OUTPUT_BUCKET, self.output.to_string()),
            (env::PROFILE, self.profile.clone()),
        ];
        variables.extend(source.version_id.clone().map(|id| (env::SOURCE_VERSION_ID, id)));
        variables.extend(source.etag.clone().map(|etag| (env::SOURCE_ETAG, etag)));
        variables.extend(source.size.map(|size| (env::SOURCE_SIZE, size.to_string())));
        variables
    }

    /// Reads a job back from environment variables.
    ///
    /// # Errors
    /// A variable is missing, empty or malformed. The error names it.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let optional = |name: &'static str| match lookup(name) {
            Some(value) if value.is_empty() => Err(EnvError::Empty(name)),
            value => Ok(value),
        };
        let required = |name| optional(name)?.ok_or(EnvError::Missing(name));
        let location = |name| move |error| EnvError::Location(name, error);

        let source = Source {
            bucket: required(env::SOURCE_BUCKET)?.parse().map_err(location(env::SOURCE_BUCKET))?,
            key: required(env::SOURCE_KEY)?.parse().map_err(location(env::SOURCE_KEY))?,
            version_id: optional(env::SOURCE_VERSION_ID)?,
            etag: optional(env::SOURCE_ETAG)?,
            size: optional(env::SOURCE_SIZE)?
                .map(|text| text.parse().map_err(|_| EnvError::Number(env::SOURCE_SIZE, text)))
                .transpose()?,
        };
        let output = required(env::OUTPUT_BUCKET)?.parse().map_err(location(env::OUTPUT_BUCKET))?;
        let id: JobId =
            required(env::JOB_ID)?.parse().map_err(|error| EnvError::JobId(env::JOB_ID, error))?;
        Ok(Self { id, source, output, profile: required(env::PROFILE)? })
    }
}

/// The environment variables that carry a job.
pub mod env {
    /// The job's id.
    pub const JOB_ID: &str = "VIDSTREAMX_JOB_ID";
    /// The upload bucket.
    pub const SOURCE_BUCKET: &str = "VIDSTREAMX_SOURCE_BUCKET";
    /// The source object's key, decoded.
    pub const SOURCE_KEY: &str = "VIDSTREAMX_SOURCE_KEY";
    /// The source object's version, in versioned buckets.
    pub const SOURCE_VERSION_ID: &str = "VIDSTREAMX_SOURCE_VERSION_ID";
    /// The source object's ETag, without quotes.
    pub const SOURCE_ETAG: &str = "VIDSTREAMX_SOURCE_ETAG";
    /// The source object's size in bytes.
    pub const SOURCE_SIZE: &str = "VIDSTREAMX_SOURCE_SIZE";
    /// The output bucket.
    pub const OUTPUT_BUCKET: &str = "VIDSTREAMX_OUTPUT_BUCKET";
    /// The profile's name.
    pub const PROFILE: &str = "VIDSTREAMX_PROFILE";
    /// The attempt's `clientToken`. A consumer finds the task by it if RunTask's response was lost.
    pub const LAUNCH: &str = "VIDSTREAMX_LAUNCH";
}

/// The environment variables are not a valid job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A required variable is not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable is set to the empty string.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A variable is not a valid bucket name or object key.
    #[error("{0}: {1}")]
    Location(&'static str, #[source] InvalidLocation),
    /// A variable is not a number.
    #[error("{0}: \"{1}\" is not a number of bytes")]
    Number(&'static str, String),
    /// A variable is not a job id.
    #[error("{0}: {1}")]
    JobId(&'static str, #[source] crate::InvalidJobId),
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn read(variables: &[(&'static str, String)]) -> Result<Job, EnvError> {
        let map: HashMap<_, _> = variables.iter().cloned().collect();
        Job::from_env(|name| map.get(name).cloned())
    }

    fn job(key: &str) -> Job {
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: key.parse().unwrap(),
            version_id: None,
            etag: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
            size: Some(7_651_447),
        };
        Job::new(source, "streams".parse().unwrap(), "default".into())
    }

    proptest! {
        #[test]
        fn a_job_round_trips_through_the_environment(key in "\\PC{1,256}") {
            let job = job(&key);
            prop_assert_eq!(read(&job.to_env()), Ok(job));
        }
    }

    #[test]
    fn errors_name_the_missing_or_empty_variable() {
        let variables = job("a.mp4").to_env();
        for (name, _) in &variables {
            let without: Vec<_> = variables.iter().filter(|(other, _)| other != name).cloned().collect();
            let optional = matches!(*name, env::SOURCE_ETAG | env::SOURCE_SIZE);
            assert_eq!(read(&without).err(), (!optional).then_some(EnvError::Missing(name)));
            let emptied: Vec<_> = variables
                .iter()
                .cloned()
                .map(|(n, v)| if n == *name { (n, String::new()) } else { (n, v) })
                .collect();
            assert_eq!(read(&emptied), Err(EnvError::Empty(name)));
        }
    }

    #[test]
    fn a_key_of_1024_control_characters_fits_the_overrides_limit() {
        // ECS allows 8,192 characters of JSON for all overrides; a control character takes six.
        let job = job(&"\u{1}".repeat(1024));
        let json = serde_json::to_string(&job.to_env()).unwrap();
        assert!(json.len() < 7_500, "{}", json.len());
    }
}

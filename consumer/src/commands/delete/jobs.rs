//! The jobs of an upload.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use aws_sdk_s3::Client;
use futures::TryStreamExt as _;
use vidstreamx_job::{JobId, Layout, Record, Source, State};

use super::command::{DeleteError, Upload};
use crate::{
    aws::error::{CallError, status},
    aws::versions::{Scope, Version, VersionedBucket},
    commands::removal::kind::{self, job_of_folder, job_of_object},
};

/// All jobs of the upload: those with a record, also a deleted one of which a version is left, and those with
/// a folder.
///
/// # Errors
/// A job runs, a record cannot be read, or a call failed.
pub(super) async fn find(
    client: &Client,
    output: &VersionedBucket,
    upload: &Upload,
) -> Result<BTreeSet<JobId>, DeleteError> {
    let prefix = kind::records() + &JobId::prefix(&upload.bucket, &upload.key);
    let mut records: BTreeMap<JobId, Vec<Version>> = BTreeMap::new();
    let mut pages = std::pin::pin!(output.pages(&prefix, Scope::All));
    while let Some(page) = pages.try_next().await? {
        for version in page.versions {
            if let Some(job) = job_of_object(&version.key) {
                records.entry(job).or_default().push(version);
            }
        }
    }
    let stem = format!("{}/", upload.stem);
    let mut pages = std::pin::pin!(output.pages(&stem, Scope::Children));
    while let Some(page) = pages.try_next().await? {
        for job in page.folders.iter().filter_map(|folder| job_of_folder(folder)) {
            if let Entry::Vacant(entry) = records.entry(job) {
                // A job of another upload bucket: its id begins with other digits.
                let versions = output.object(&Layout::record(entry.key())).await?;
                entry.insert(versions);
            }
        }
    }
    let mut jobs = BTreeSet::new();
    for (job, versions) in records {
        let newest = versions.iter().filter(|version| version.bytes.is_some()).max_by_key(|version| {
            // The current version may have the time of its predecessor, because S3 lists full seconds.
            (version.is_latest, version.written)
        });
        let record = match newest {
            Some(version) => read(client, output, version).await?,
            None => None,
        };
        match record {
            Some(record) if !is_about(&record.source, upload) => continue,
            Some(record)
                if record.state == State::Running && newest.is_some_and(|newest| newest.is_latest) =>
            {
                return Err(DeleteError::Running { key: upload.key.clone(), job });
            }
            _ => jobs.insert(job),
        };
    }
    Ok(jobs)
}

/// Other keys can have the same stem only by mistake, and the same first digits only by chance. A record
/// tells them apart.
fn is_about(source: &Source, upload: &Upload) -> bool {
    source.key == upload.key
}

/// Reads one version of a record; `None` if it was deleted meanwhile.
async fn read(
    client: &Client,
    output: &VersionedBucket,
    version: &Version,
) -> Result<Option<Record>, DeleteError> {
    let call = "GetObject";
    let uri = || format!("s3://{}/{}", output.name(), version.key);
    // Without its id, the current version needs no permission for versions.
    let id = version.id.clone().filter(|_| !version.is_latest);
    let get = client.get_object().bucket(output.name().as_str()).key(&version.key).set_version_id(id);
    let answer = match get.send().await {
        Ok(answer) => answer,
        Err(error) if status(&error) == Some(404) => return Ok(None),
        Err(error) => return Err(CallError::new(call, &error).into()),
    };
    let body = answer.body.collect().await;
    let body = body.map_err(|error| CallError::Passing { call, reason: error.to_string() })?;
    let record = Record::parse(&body.into_bytes());
    Ok(Some(record.map_err(|error| DeleteError::Unreadable { record: uri(), error })?))
}

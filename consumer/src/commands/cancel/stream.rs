//! Removes the incomplete stream of a cancelled job. The task does the same after it rejects an upload, but a
//! task that is stopped keeps its stream for the next attempt.

use aws_sdk_s3::{Client, error::SdkError, operation::get_object::GetObjectOutput};
use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;
use vidstreamx_job::{BucketName, Layout, Record};

use crate::{
    aws::{
        error::{CallError, status},
        versions::{Scope, VersionedBucket},
    },
    commands::{
        progress::ProgressDisplay,
        removal::{
            RemovalError,
            kind::{Kind, Totals},
            remover::Remover,
        },
    },
};

const MASTER: &str = "master.m3u8";
/// The master playlist that the job's own one replaced, in the job's folder.
const REPLACED: &str = "replaced.m3u8";

/// Gives the stable address back to the stream that it showed before, and deletes the job's folder.
///
/// # Errors
/// A call failed, or S3 refused to delete objects. Then it can be repeated.
pub(super) async fn remove(
    client: &Client,
    output: &BucketName,
    record: &Record,
) -> Result<Totals, RemovalError> {
    let layout = Layout::new(&record.source.key, &record.job_id);
    give_address_back(client, output, &layout, record).await?;
    let bucket = VersionedBucket::new(client.clone(), output.clone());
    let progress = ProgressDisplay::new("object versions", None);
    let stop = CancellationToken::new();
    let remover = Remover::new("cancel", false, &stop, &progress);
    let folder = layout.own("");
    let pages = bucket.pages(&folder, Scope::All).map_ok(|page| page.versions);
    // The job has ended, so nothing uses its folder.
    remover.remove(&bucket, pages, |_| Some(Kind::Stream), async || Ok(true)).await?;
    Ok(remover.totals())
}

/// Restores the master playlist that the job replaced, or deletes the job's own one. Leaves the address alone
/// if another job's stream has it, even if that stream takes it just now.
async fn give_address_back(
    client: &Client,
    output: &BucketName,
    layout: &Layout,
    record: &Record,
) -> Result<(), CallError> {
    let master = layout.stable(MASTER);
    let Some(shown) = get(client, output, &master).await? else { return Ok(()) };
    let etag = shown.e_tag.clone().unwrap_or_default();
    let text = body(shown).await?;
    if !String::from_utf8_lossy(&text).contains(&format!("{}/", record.job_id)) {
        return Ok(());
    }
    let result = match get(client, output, &layout.own(REPLACED)).await? {
        Some(replaced) => {
            let put = client
                .put_object()
                .bucket(output.as_str())
                .key(&master)
                .set_content_type(replaced.content_type.clone())
                .set_cache_control(replaced.cache_control.clone())
                .if_match(etag)
                .body(body(replaced).await?.into());
            unless_changed(put.send().await).map_err(|error| CallError::new("PutObject", &error))
        }
        None => {
            let delete = client.delete_object().bucket(output.as_str()).key(&master).if_match(etag);
            unless_changed(delete.send().await).map_err(|error| CallError::new("DeleteObject", &error))
        }
    };
    result
}

/// Ignores that the object was changed or deleted after it was read.
fn unless_changed<T, E>(result: Result<T, SdkError<E>>) -> Result<(), SdkError<E>> {
    match result {
        Err(error) if !matches!(status(&error), Some(404 | 409 | 412)) => Err(error),
        _ => Ok(()),
    }
}

async fn get(client: &Client, bucket: &BucketName, key: &str) -> Result<Option<GetObjectOutput>, CallError> {
    match client.get_object().bucket(bucket.as_str()).key(key).send().await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(CallError::new("GetObject", &error)),
    }
}

async fn body(answer: GetObjectOutput) -> Result<Vec<u8>, CallError> {
    let body = answer.body.collect().await;
    let body = body.map_err(|error| CallError::Passing { call: "GetObject", reason: error.to_string() })?;
    Ok(body.to_vec())
}

//! Removes the incomplete stream of a cancelled job. The task does the same after it rejects an upload, but a
//! task that is stopped keeps its stream for the next attempt.

use aws_sdk_s3::{Client, error::SdkError, operation::get_object::GetObjectOutput};
use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;
use vidstreamx_job::{BucketName, Layout, Outcome, Record, Report};

use crate::{
    aws::{
        error::{CallError, status},
        record_store::{LoadError, RecordStore as _, S3RecordStore, Stored, points_to},
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
const MANIFEST: &str = "manifest.mpd";
/// The master playlist that the job's own one replaced, in the job's folder.
const REPLACED: &str = "replaced.m3u8";

/// Gives the stable address back to the stream that it showed before, and deletes the job's folder. Returns
/// `None` and removes nothing if the folder may have a complete stream: if the job was restarted, or if its
/// task wrote a complete report.
///
/// # Errors
/// A call failed, S3 refused to delete objects, or the job was restarted meanwhile. Then it can be repeated.
pub(super) async fn remove(
    client: &Client,
    records: &S3RecordStore,
    output: &BucketName,
    stored: &Stored,
) -> Result<Option<Totals>, RemovalError> {
    let record = &stored.record;
    let layout = Layout::new(&record.source.key, &record.job_id);
    if !record.restarts.is_empty() || is_complete(client, output, &layout, record).await? {
        return Ok(None);
    }
    for pointer in [MASTER, MANIFEST] {
        give_address_back(client, output, &layout, pointer, record).await?;
    }
    let bucket = VersionedBucket::new(client.clone(), output.clone());
    let progress = ProgressDisplay::new("object versions", None);
    let stop = CancellationToken::new();
    let remover = Remover::new("cancel", false, &stop, &progress);
    let folder = layout.own("");
    let pages = bucket.pages(&folder, Scope::All).map_ok(|page| page.versions);
    let is_unchanged = async || {
        let current = records.load(&record.job_id).await;
        let current = current.map_err(|error| match error {
            LoadError::Call(call) => call,
            LoadError::Unreadable { .. } => {
                CallError::Passing { call: "GetObject", reason: error.to_string() }
            }
        })?;
        Ok(current.is_some_and(|current| current.etag == stored.etag))
    };
    remover.remove(&bucket, pages, |_| Some(Kind::Stream), is_unchanged).await?;
    Ok(Some(remover.totals()))
}

/// Whether the task has completed the stream, and was stopped after that.
async fn is_complete(
    client: &Client,
    output: &BucketName,
    layout: &Layout,
    record: &Record,
) -> Result<bool, CallError> {
    let Some(answer) = get(client, output, &layout.own("job.json")).await? else { return Ok(false) };
    let report = Report::parse(&body(answer).await?);
    // A report that cannot be read may be a complete one.
    Ok(report.map_or(true, |report| report.job_id != record.job_id || report.outcome == Outcome::Complete))
}

/// Restores the master playlist that the job replaced, or deletes the job's own playlist or manifest. Leaves
/// the address alone if another job's stream has it, even if that stream takes it just now.
async fn give_address_back(
    client: &Client,
    output: &BucketName,
    layout: &Layout,
    pointer: &str,
    record: &Record,
) -> Result<(), CallError> {
    let master = layout.stable(pointer);
    let Some(shown) = get(client, output, &master).await? else { return Ok(()) };
    let etag = shown.e_tag.clone().unwrap_or_default();
    let text = body(shown).await?;
    if !points_to(&text, &record.job_id) {
        return Ok(());
    }
    let replaced = match pointer {
        MASTER => get(client, output, &layout.own(REPLACED)).await?,
        _ => None,
    };
    match replaced {
        Some(replaced) => {
            let put = client
                .put_object()
                .bucket(output.as_str())
                .key(&master)
                .set_content_type(replaced.content_type.clone())
                .set_cache_control(replaced.cache_control.clone())
                .if_match(etag)
                .body(body(replaced).await?.into());
            match put.send().await {
                Err(error) if !has_changed(&error) => Err(CallError::new("PutObject", &error)),
                _ => Ok(()),
            }
        }
        None => {
            let delete = client.delete_object().bucket(output.as_str()).key(&master).if_match(etag);
            match delete.send().await {
                Err(error) if !has_changed(&error) => Err(CallError::new("DeleteObject", &error)),
                _ => Ok(()),
            }
        }
    }
}

/// Whether the object was changed or deleted after it was read.
fn has_changed<E>(error: &SdkError<E>) -> bool {
    matches!(status(error), Some(404 | 409 | 412))
}

async fn get(client: &Client, bucket: &BucketName, key: &str) -> Result<Option<GetObjectOutput>, CallError> {
    match client.get_object().bucket(bucket.as_str()).key(key).send().await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(CallError::new("GetObject", &error)),
    }
}

/// Tasks decode hostile files, so what they write is read only up to this size.
const LARGEST: i64 = 4 << 20;

async fn body(answer: GetObjectOutput) -> Result<Vec<u8>, CallError> {
    if answer.content_length.is_some_and(|length| length > LARGEST) {
        let reason = format!("a playlist or report has more than {LARGEST} bytes; use --keep-stream");
        return Err(CallError::Passing { call: "GetObject", reason });
    }
    let body = answer.body.collect().await;
    let body = body.map_err(|error| CallError::Passing { call: "GetObject", reason: error.to_string() })?;
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{commands::removal::fake_s3::FakeS3, fixtures};

    fn record(etag: &str) -> Record {
        let source = vidstreamx_job::Source { etag: Some(etag.into()), ..fixtures::source("a.mp4") };
        Record::new(&fixtures::job_of(source), Timestamp::UNIX_EPOCH)
    }

    fn playlist(record: &Record) -> String {
        format!("#EXTM3U\n{}/plan/video/720p/index.m3u8\n", record.job_id)
    }

    async fn removed(s3: &FakeS3, record: &Record) -> (Vec<String>, Option<String>) {
        let output: BucketName = "streams".parse().unwrap();
        s3.put_record(record);
        let records = S3RecordStore::new(s3.client(), output.clone());
        let stored = records.load(&record.job_id).await.unwrap().unwrap();
        remove(&s3.client(), &records, &output, &stored).await.unwrap();
        s3.remove("streams", &Layout::record(&record.job_id));
        (s3.keys().into_iter().collect(), s3.text("streams", "a.mp4/master.m3u8"))
    }

    #[tokio::test]
    async fn the_stable_address_shows_again_what_it_showed_before() {
        let (old, cancelled, newer) = (record("old"), record("cancelled"), record("newer"));
        for (shown, replaced, expected) in [
            (&cancelled, Some(&old), Some(&old)),
            (&cancelled, None, None),
            // Another upload has taken the address meanwhile.
            (&newer, Some(&old), Some(&newer)),
        ] {
            let s3 = FakeS3::default();
            s3.put_stream(&old, "plan");
            s3.put_stream(&cancelled, "plan");
            let layout = Layout::new(&cancelled.source.key, &cancelled.job_id);
            // The task was stopped before it wrote a report.
            s3.remove("streams", &layout.own("job.json"));
            s3.put("streams", "a.mp4/extra.mp4/master.m3u8", "of another upload", Timestamp::UNIX_EPOCH);
            s3.put("streams", "a.mp4/master.m3u8", &playlist(shown), Timestamp::UNIX_EPOCH);
            if let Some(replaced) = replaced {
                let key = format!("a.mp4/{}/replaced.m3u8", cancelled.job_id);
                s3.put("streams", &key, &playlist(replaced), Timestamp::UNIX_EPOCH);
            }
            let (keys, master) = removed(&s3, &cancelled).await;
            assert_eq!(master, expected.map(playlist));
            assert!(!keys.iter().any(|key| key.contains(cancelled.job_id.as_str())), "{keys:?}");
            assert!(keys.iter().any(|key| key.contains(old.job_id.as_str())), "{keys:?}");
            assert!(keys.contains(&"streams/a.mp4/extra.mp4/master.m3u8".to_owned()), "{keys:?}");
            // It can be repeated.
            assert_eq!(removed(&s3, &cancelled).await, (keys, master));
        }
    }

    #[tokio::test]
    async fn a_complete_stream_stays() {
        let report = |outcome| serde_json::to_string(&fixtures::report(outcome)).unwrap();
        let mut again = record("again");
        again.restarts.push(vidstreamx_job::Restart {
            at: Timestamp::UNIX_EPOCH,
            after_attempt: 1,
            request: "force-1".into(),
        });
        for (record, outcome, stays) in [
            (record("late"), Outcome::Complete, true),
            (again, Outcome::Failed, true),
            (record("incomplete"), Outcome::Failed, false),
        ] {
            let s3 = FakeS3::default();
            s3.put_stream(&record, "plan");
            let own = Layout::new(&record.source.key, &record.job_id).own("job.json");
            let report = report(outcome).replace("0123456789abcdef0123456789abcdef", record.job_id.as_str());
            s3.put("streams", &own, &report, Timestamp::UNIX_EPOCH);
            s3.put("streams", "a.mp4/master.m3u8", &playlist(&record), Timestamp::UNIX_EPOCH);
            s3.put("streams", "a.mp4/manifest.mpd", &playlist(&record), Timestamp::UNIX_EPOCH);
            let (keys, master) = removed(&s3, &record).await;
            assert_eq!(master.is_some(), stays);
            assert_eq!(s3.text("streams", "a.mp4/manifest.mpd").is_some(), stays);
            assert_eq!(keys.iter().any(|key| key.contains(record.job_id.as_str())), stays, "{keys:?}");
        }
    }
}

//! A library of videos that were made earlier: objects of the upload bucket, and the record of each.

use jiff::{Timestamp, ToSpan as _};
use vidstreamx_job::{Attempt, Capacity, Job, Record, Size, Source, State};

use crate::store::{OUTPUT_BUCKET, Object, Store, UPLOAD_BUCKET, Upload};

/// One of this many records is of the last 24 hours.
const VIDEOS_PER_RECENT_ONE: usize = 100;

/// Fills both buckets with this many videos. All are done.
pub(crate) fn fill(
    store: &mut Store,
    videos: usize,
    upload: &Upload,
    now: Timestamp,
) -> Result<(), Box<dyn std::error::Error>> {
    for number in 0..videos {
        let source = Source {
            bucket: UPLOAD_BUCKET.parse()?,
            key: format!("library/{:03}/film-{number:08}.mp4", number / 1000).parse()?,
            version_id: None,
            etag: Some(upload.etag.clone()),
            size: Some(upload.bytes.len() as u64),
        };
        let minutes = if number % VIDEOS_PER_RECENT_ONE == 0 {
            10 + (number / VIDEOS_PER_RECENT_ONE) % 1_000 // at most 17 hours
        } else {
            (48 + number % 8_760) * 60 // two days to a year
        };
        let updated = now - i64::try_from(minutes)?.minutes();
        let record = record(source, updated)?;
        let object = |bytes, etag| Object { bytes, etag, modified: updated, crc32: None };
        store.insert(
            format!("{UPLOAD_BUCKET}/{}", record.source.key),
            object(upload.bytes.clone(), format!("\"{}\"", upload.etag)),
        );
        store.insert(
            format!("{OUTPUT_BUCKET}/{}", vidstreamx_job::Layout::record(&record.job_id)),
            object(serde_json::to_vec(&record)?.into(), format!("\"{number:032x}\"")),
        );
    }
    Ok(())
}

/// The record of a video that one task made.
fn record(source: Source, updated: Timestamp) -> Result<Record, Box<dyn std::error::Error>> {
    let started = updated - 5.minutes();
    let job = Job::new(source, OUTPUT_BUCKET.parse()?, "default".into());
    let mut record = Record::new(&job, started - 2.seconds());
    record.state = State::Done;
    record.updated_at = updated;
    record.attempts = vec![Attempt {
        capacity: Some(Capacity::OnDemand),
        size: Some(Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 }),
        size_reason: Some("h264 1920x1080 at 25/s, 3.5 min, 1.2 MiB: rule \"ordinary\"".into()),
        task_arn: Some(
            "arn:aws:ecs:us-east-1:123456789012:task/vidstreamx/0123456789abcdef0123456789abcdef".into(),
        ),
        ended_at: Some(updated),
        billed_seconds: Some(298.0),
        cost_usd: Some(0.0164),
        exit_code: Some(0),
        stop_code: Some("EssentialContainerExited".into()),
        ..Attempt::new(1, started)
    }];
    Ok(record)
}

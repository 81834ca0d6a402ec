//! The object store: uploads, which all have the same content; records, written conditionally; and reports.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
};

use bytes::Bytes;
use hyper::StatusCode;
use jiff::Timestamp;

/// Bucket in which every key exists, with the content of [`Upload`].
pub(crate) const UPLOAD_BUCKET: &str = "uploads";
/// Bucket that keeps all written objects.
pub(crate) const OUTPUT_BUCKET: &str = "streams";

/// The content of every upload.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub bytes: Bytes,
    /// Without quotes.
    pub etag: String,
}

/// A stored object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub bytes: Bytes,
    /// With quotes.
    pub etag: String,
    /// Time of the last write.
    pub modified: Timestamp,
    /// The checksum that the writer sent. Reads of the whole object return it.
    pub crc32: Option<String>,
}

/// The conditions of a write.
#[derive(Debug, Default)]
pub(crate) struct Conditions<'a> {
    /// The ETag in `If-Match`.
    pub replaces: Option<&'a str>,
    /// Whether the write has `If-None-Match: *`.
    pub is_first: bool,
}

/// HTTP status and S3 error code of a refused write.
pub(crate) type Refusal = (StatusCode, &'static str);

/// The written objects by `bucket/key`.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<String, Object>,
    writes: u64,
}

impl Store {
    pub(crate) fn get(&self, path: &str) -> Option<&Object> {
        self.objects.get(path)
    }

    /// The keys of a bucket that begin with `prefix` and follow `after`, in order, with their objects.
    pub(crate) fn list<'a>(
        &'a self,
        bucket: &str,
        prefix: &str,
        after: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Object)> {
        let skipped = bucket.len() + 1;
        let [prefix, after] = [prefix, after].map(|key| format!("{bucket}/{key}"));
        let start = if after < prefix { Bound::Included(&prefix) } else { Bound::Excluded(&after) };
        let objects = self.objects.range::<String, _>((start, Bound::Unbounded));
        objects
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .filter_map(move |(path, object)| Some((path.get(skipped..)?, object)))
    }

    /// Adds an object, or replaces it.
    pub(crate) fn insert(&mut self, path: String, object: Object) {
        self.objects.insert(path, object);
    }

    /// Writes an object if the conditions hold. Returns its ETag.
    pub(crate) fn put(
        &mut self,
        path: &str,
        bytes: Bytes,
        crc32: Option<String>,
        conditions: &Conditions<'_>,
    ) -> Result<String, Refusal> {
        match (self.objects.get(path), conditions) {
            (None, Conditions { replaces: Some(_), .. }) => return Err((StatusCode::NOT_FOUND, "NoSuchKey")),
            (Some(_), Conditions { is_first: true, .. }) => {
                return Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
            }
            (Some(object), Conditions { replaces: Some(etag), .. }) if object.etag != *etag => {
                return Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
            }
            _ => {}
        }
        self.writes += 1;
        let etag = format!("\"{:032x}\"", self.writes);
        let modified = Timestamp::now();
        self.insert(path.to_owned(), Object { bytes, etag: etag.clone(), modified, crc32 });
        Ok(etag)
    }

    /// The number of objects that contain a text. The benchmark counts records of a state with it.
    pub(crate) fn count_containing(&self, text: &str) -> usize {
        let contains =
            |object: &&Object| std::str::from_utf8(&object.bytes).is_ok_and(|found| found.contains(text));
        self.objects.values().filter(contains).count()
    }
}

/// The byte range of a `Range` header; `None` if it is invalid or outside the object.
pub(crate) fn range(header: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        length.saturating_sub(last.parse().ok()?)..length
    } else {
        let end = if last.is_empty() { length } else { last.parse::<usize>().ok()?.saturating_add(1) };
        first.parse().ok()?..end.min(length)
    };
    (!range.is_empty()).then_some(range)
}

/// The job id in the key of a report.
pub(crate) fn job_of_report(key: &str) -> Option<&str> {
    let id = key.strip_suffix("/job.json")?.rsplit('/').next()?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// A typical report of the task, for ten minutes of 1080p.
pub(crate) fn report(job: &str) -> String {
    let video = |name: &str, width: u32, height: u32, peak: u64| {
        format!(
            r#"{{"name":"{name}","kind":"video","codecs":"avc1.640028","copied":false,"width":{width},"height":{height},"channels":0,"segments":150,"frames":15000,"duration_seconds":600.0,"bytes":{},"peak_bandwidth":{peak},"average_bandwidth":{},"verified":{{"codec":"h264","width":{width},"height":{height},"keyframes_at_boundaries":2,"frames_read":200}}}}"#,
            peak * 60,
            peak * 8 / 10,
        )
    };
    let renditions = [
        video("1080p", 1920, 1080, 6_000_000),
        video("720p", 1280, 720, 3_000_000),
        video("480p", 854, 480, 1_500_000),
        video("360p", 640, 360, 800_000),
        video("240p", 426, 240, 400_000),
        r#"{"name":"und","kind":"audio","codecs":"mp4a.40.2","copied":true,"width":0,"height":0,"channels":2,"segments":150,"frames":28125,"duration_seconds":600.0,"bytes":9600000,"peak_bandwidth":130000,"average_bandwidth":128000,"verified":{"codec":"aac","width":0,"height":0,"keyframes_at_boundaries":2,"frames_read":376}}"#.to_owned(),
    ]
    .join(",");
    format!(
        r#"{{"schema":1,"job_id":"{job}","outcome":"complete","probe":{{"format":"mov,mp4,m4a,3gp,3g2,mj2","duration_seconds":600.0,"video":{{"codec":"h264","width":1920,"height":1080,"frame_rate":25.0,"rotation":0,"pixel_format":"yuv420p","dynamic_range":"sdr","bit_rate":5000000}},"audio":[{{"codec":"aac","channels":2,"sample_rate":48000}}]}},"renditions":[{renditions}],"timings":{{"started_at":"2026-05-04T09:13:00Z","finished_at":"2026-05-04T09:18:00Z","probe_seconds":0.4,"first_playable_seconds":5.1,"encode_seconds":295.0,"total_seconds":300.0}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use vidstreamx_job::{Outcome, Report};

    use super::*;

    #[test]
    fn writes_follow_their_conditions() {
        let mut store = Store::default();
        let mut put = |conditions| store.put("streams/a", Bytes::new(), None, &conditions);
        let replaces = |etag| Conditions { replaces: Some(etag), is_first: false };
        let first = Conditions { replaces: None, is_first: true };
        assert_eq!(put(replaces("\"x\"")), Err((StatusCode::NOT_FOUND, "NoSuchKey")));
        let etag = put(first).unwrap();
        assert_eq!(
            put(Conditions { replaces: None, is_first: true }),
            Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed"))
        );
        let next = put(replaces(&etag)).unwrap();
        assert_eq!(put(replaces(&etag)), Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed")));
        assert!(put(replaces(&next)).is_ok());
    }

    #[test]
    fn ranges_end_with_the_object() {
        assert_eq!(range("bytes=0-65535", 100), Some(0..100));
        assert_eq!(range("bytes=10-19", 100), Some(10..20));
        assert_eq!(range("bytes=90-", 100), Some(90..100));
        assert_eq!(range("bytes=-10", 100), Some(90..100));
        assert_eq!(range("bytes=100-", 100), None);
    }

    #[test]
    fn the_consumer_can_read_the_report() {
        let job = "0123456789abcdef0123456789abcdef";
        assert_eq!(job_of_report(&format!("films/a.mp4/{job}/job.json")), Some(job));
        assert_eq!(job_of_report("films/a.mp4/job.json"), None);
        let report = Report::parse(report(job).as_bytes()).unwrap();
        assert_eq!((report.job_id.as_str(), report.outcome), (job, Outcome::Complete));
    }
}

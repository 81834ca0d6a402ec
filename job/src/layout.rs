//! Object keys in the output bucket.

use sha2::{Digest, Sha256};

use crate::{identity::JobId, location::ObjectKey, text::hex_prefix};

/// Prefix of job records and progress objects. Streams are never published below it.
pub const RECORDS_PREFIX: &str = ".vidstreamx/";

/// Maximum bytes of a stem, the first part of a key ([`Layout`]). The rest of the key has room for paths such
/// as `/<job id>/<plan id>/<kind>/<name>/seg-0000000.m4s`.
const LONGEST_STEM: usize = ObjectKey::MAX_BYTES - 160;
/// Number of bytes of the hash in a stem.
const HASH_BYTES: usize = 8;

/// The keys of one job's objects in the output bucket.
///
/// ```text
/// <stem>/master.m3u8  <stem>/job.json        the stable address, one per source key
/// <stem>/<job id>/…                          all objects that one job published
/// .vidstreamx/jobs/<job id>.json             the consumer's record
/// .vidstreamx/progress/<job id>.json         the task's progress
/// .vidstreamx/paused.json                    exists while an operator pauses the stack
/// ```
///
/// The stem is the source key if that key can begin a URL path and cannot reach the objects of another video.
/// These keys are different: keys near S3's length limit, keys with empty, `.` or `..` parts (browsers and
/// proxies rewrite them), keys below [`RECORDS_PREFIX`], keys with a part like a job id (they could be below
/// another video's folder), and keys that end like a stem with a hash. Their stem is a readable part of the
/// key and a hash of the whole key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    stem: String,
    job_id: JobId,
}

impl Layout {
    /// The keys for a source key and a job.
    #[must_use]
    pub fn new(source: &ObjectKey, job_id: &JobId) -> Self {
        Self { stem: stem(source.as_str()), job_id: job_id.clone() }
    }

    /// The stable address of a source key, without a trailing slash. All jobs of the key have the same one.
    #[must_use]
    pub fn stem_of(source: &ObjectKey) -> String {
        stem(source.as_str())
    }

    /// The stable address without a trailing slash.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The key of an object at the stable address, by its name (`master.m3u8`, `job.json`).
    #[must_use]
    pub fn stable(&self, name: &str) -> String {
        format!("{}/{name}", self.stem)
    }

    /// The key of an object in the job's own folder, by its path below that folder.
    #[must_use]
    pub fn own(&self, path: &str) -> String {
        format!("{}/{}/{path}", self.stem, self.job_id)
    }

    /// The key of the consumer's record of a job.
    #[must_use]
    pub fn record(job_id: &JobId) -> String {
        format!("{}.json", Self::records(job_id.as_str()))
    }

    /// What the keys of the records begin with, if the job ids begin with these digits.
    #[must_use]
    pub fn records(digits: &str) -> String {
        format!("{RECORDS_PREFIX}jobs/{digits}")
    }

    /// The key of the object that pauses all consumers.
    #[must_use]
    pub fn pause() -> String {
        format!("{RECORDS_PREFIX}paused.json")
    }

    /// The key of the job's progress object.
    #[must_use]
    pub fn progress(job_id: &JobId) -> String {
        format!("{RECORDS_PREFIX}progress/{job_id}.json")
    }
}

fn stem(key: &str) -> String {
    let is_odd = |part: &&str| matches!(*part, "" | "." | "..") || part.parse::<JobId>().is_ok();
    let has_odd_part = key.split('/').any(|part| is_odd(&part));
    let is_record = |key: &str| key.split('/').next() == Some(RECORDS_PREFIX.trim_end_matches('/'));
    if key.len() <= LONGEST_STEM && !has_odd_part && !is_record(key) && !ends_like_hashed_stem(key) {
        return key.to_owned();
    }
    let hash = hex_prefix(Sha256::digest(key), HASH_BYTES);
    let mut readable = key.split('/').filter(|part| !is_odd(part)).collect::<Vec<_>>().join("/");
    if is_record(&readable) {
        readable.insert(0, '_');
    }
    let end = readable.floor_char_boundary(LONGEST_STEM - 1 - hash.len());
    readable.truncate(end);
    let readable = readable.trim_end_matches('/');
    format!("{readable}~{hash}")
}

/// Whether a key ends with `~` and a hash. The stem of another key could be the same text.
fn ends_like_hashed_stem(key: &str) -> bool {
    key.rsplit_once('~').is_some_and(|(_, hash)| {
        hash.len() == 2 * HASH_BYTES && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(key: &str) -> Layout {
        Layout::new(&key.parse().unwrap(), &"0123456789abcdef0123456789abcdef".parse().unwrap())
    }

    #[test]
    fn ordinary_keys_are_their_own_stem() {
        for key in ["a.mp4", "dir/b c+d&e#f é.mp4", ".hidden.mp4", "...dots.mp4"] {
            assert_eq!(layout(key).stem(), key);
        }
        let layout = layout("dir/a.mp4");
        assert_eq!(layout.stable("job.json"), "dir/a.mp4/job.json");
        assert_eq!(
            layout.own("video/1080p/init.mp4"),
            "dir/a.mp4/0123456789abcdef0123456789abcdef/video/1080p/init.mp4"
        );
    }

    #[test]
    fn unusual_keys_get_a_safe_unique_stem() {
        let stems: Vec<_> =
            ["../a.mp4", "/a.mp4", "./a.mp4", "a.mp4/"].map(|key| layout(key).stem().to_owned()).into();
        for stem in &stems {
            assert!(stem.starts_with("a.mp4~"), "{stem}");
        }
        assert_eq!(stems.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!(layout(".vidstreamx/jobs/a.mp4").stem().starts_with("_.vidstreamx/jobs/a.mp4~"));
    }

    /// No uploader reaches the outputs of another video, or the records.
    #[test]
    fn no_key_reaches_the_objects_of_another_video_or_the_records() {
        let job = "0123456789abcdef0123456789abcdef";
        let shortened = layout("film.mp4/").stem().to_owned();
        for key in [
            format!("film.mp4/{job}"),
            format!("film.mp4/{job}/a.mp4"),
            format!("film.mp4/{job}/{job}"),
            job.to_owned(),
            ".vidstreamx".to_owned(),
            ".vidstreamx/jobs".to_owned(),
            format!(".vidstreamx/{job}"),
            shortened,
        ] {
            let stem = layout(&key).stem().to_owned();
            assert!(stem != key && ends_like_hashed_stem(&stem), "{key}: {stem}");
            assert!(
                !stem.starts_with(&format!("film.mp4/{job}")) && !stem.starts_with(".vidstreamx"),
                "{stem}"
            );
        }
        for ordinary in [".vidstreamx.mp4", "a~b.mp4", "film.mp4/master.m3u8", "master.m3u8"] {
            assert_eq!(layout(ordinary).stem(), ordinary);
        }
    }

    proptest! {
        #[test]
        fn all_keys_fit_s3_and_no_stream_is_below_the_records(key in "[\\PC]{1,1024}") {
            prop_assume!(key.len() <= ObjectKey::MAX_BYTES);
            let layout = layout(&key);
            let longest = layout.own("subtitles/mul-Latn-001-x-longest-name-2/seg-0000000.m4s");
            prop_assert!(longest.parse::<ObjectKey>().is_ok());
            prop_assert!(!longest.starts_with(RECORDS_PREFIX));
            prop_assert!(!layout.stem().split('/').any(|part| matches!(part, "" | "." | "..")));
        }
    }
}

//! Which objects of the output bucket belong to an upload, and what they are.
//!
//! The layout of keys ([`Layout`](vidstreamx_job::Layout)) makes this certain. Objects directly below a stem
//! are at the stable address, and a folder that is named like a job id belongs to a job of the stem. No part
//! of another upload's stem looks like a job id, so everything else below a stem belongs to other uploads:
//! `film.mp4/extra.mp4/master.m3u8` is not an object of `film.mp4`.

use std::{collections::BTreeMap, fmt::Write as _};

use indicatif::DecimalBytes;
use vidstreamx_job::{JobId, RECORDS_PREFIX};

use crate::commands::format;

/// The kind of an object. The order is that of output and deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Upload,
    /// Playlist, manifest and report that viewers' pages load.
    StableAddress,
    /// An object in a job's folder.
    Stream,
    Checkpoint,
    Progress,
    Record,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::StableAddress => "stable address",
            Self::Stream => "streams",
            Self::Checkpoint => "checkpoints",
            Self::Progress => "progress",
            Self::Record => "records",
        }
    }
}

/// The kind of an object below a stem; `None` if it belongs to another upload.
#[must_use]
pub(crate) fn below_stem(stem: &str, key: &str) -> Option<Kind> {
    let rest = key.strip_prefix(stem)?.strip_prefix('/')?;
    match rest.split_once('/') {
        None => Some(Kind::StableAddress),
        Some((folder, path)) => folder.parse::<JobId>().is_ok().then(|| in_job_folder(path)),
    }
}

/// The kind of an object by its path below its job's folder.
#[must_use]
pub(crate) fn in_job_folder(path: &str) -> Kind {
    match path.split('/').nth(1) {
        Some(CHECKPOINT) if path.split('/').nth(2).is_some() => Kind::Checkpoint,
        _ => Kind::Stream,
    }
}

/// The folder of a checkpoint below the folder of a plan.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// The job of a folder, if the prefix is `<stem>/<job id>/`.
#[must_use]
pub(crate) fn job_of_folder(folder: &str) -> Option<JobId> {
    last_part(folder).parse().ok()
}

/// The last part of a prefix that ends in `/`.
#[must_use]
pub(crate) fn last_part(folder: &str) -> &str {
    let folder = folder.strip_suffix('/').unwrap_or(folder);
    folder.rsplit_once('/').map_or(folder, |(_, part)| part)
}

/// The prefix of all records.
#[must_use]
pub(crate) fn records() -> String {
    format!("{RECORDS_PREFIX}jobs/")
}

/// The prefix of all progress objects.
#[must_use]
pub(crate) fn progress_objects() -> String {
    format!("{RECORDS_PREFIX}progress/")
}

/// The job of a record or progress object.
#[must_use]
pub(crate) fn job_of_object(key: &str) -> Option<JobId> {
    [records(), progress_objects()]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix)?.strip_suffix(".json")?.parse().ok())
}

/// Numbers and sizes of object versions by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals(BTreeMap<Kind, (u64, u64)>);

impl Totals {
    /// Adds a version. A delete marker has no bytes.
    pub(crate) fn add(&mut self, kind: Kind, bytes: Option<u64>) {
        let (count, sum) = self.0.entry(kind).or_default();
        *count += 1;
        *sum += bytes.unwrap_or_default();
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line per kind.
    #[must_use]
    pub(crate) fn lines(&self, verb: &str) -> String {
        let mut lines = String::new();
        for (kind, (count, bytes)) in &self.0 {
            let versions = format::count(*count, "object version");
            let _ = writeln!(lines, "{:<16}{versions} {verb}, {}", kind.name(), DecimalBytes(*bytes));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vidstreamx_job::{Layout, ObjectKey};

    use super::*;

    const JOB: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn only_direct_children_and_job_folders_belong_to_an_upload() {
        for (key, kind) in [
            ("film.mp4/master.m3u8", Some(Kind::StableAddress)),
            ("film.mp4/", Some(Kind::StableAddress)),
            ("film.mp4/0123456789abcdef0123456789abcdef/job.json", Some(Kind::Stream)),
            ("film.mp4/0123456789abcdef0123456789abcdef/checkpoint/a", Some(Kind::Stream)),
            ("film.mp4/0123456789abcdef0123456789abcdef/p/checkpoint/00000.json", Some(Kind::Checkpoint)),
            ("film.mp4/0123456789abcdef0123456789abcdef/p/checkpoint", Some(Kind::Stream)),
            ("film.mp4/extra.mp4/master.m3u8", None),
            ("film.mp4/extra.mp4/0123456789abcdef0123456789abcdef/job.json", None),
            ("film.mp4", None),
            ("film.mp40/master.m3u8", None),
            ("other/film.mp4/master.m3u8", None),
        ] {
            assert_eq!(below_stem("film.mp4", key), kind, "{key}");
        }
    }

    #[test]
    fn job_ids_are_read_from_folders_and_records() {
        let job: JobId = JOB.parse().unwrap();
        assert_eq!(job_of_folder(&format!("a/film.mp4/{JOB}/")), Some(job.clone()));
        assert_eq!(job_of_folder("a/film.mp4/"), None);
        assert_eq!(job_of_object(&Layout::record(&job)), Some(job.clone()));
        assert_eq!(job_of_object(&Layout::progress(&job)), Some(job));
        assert_eq!(job_of_object(".vidstreamx/jobs/notes.json"), None);
    }

    #[test]
    fn totals_are_shown_by_kind_in_the_order_of_deletion() {
        let mut totals = Totals::default();
        totals.add(Kind::Record, Some(2_000));
        totals.add(Kind::Stream, Some(1_500_000));
        totals.add(Kind::Stream, None);
        assert_eq!(
            totals.lines("deleted"),
            "streams         2 object versions deleted, 1.50 MB\n\
             records         1 object version deleted, 2.00 kB\n"
        );
    }

    /// Keys whose parts are those that collide: job ids, names of published objects, parts of each other.
    fn key() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("film.mp4".to_owned()),
            Just("extra.mp4".to_owned()),
            Just("master.m3u8".to_owned()),
            Just("checkpoint".to_owned()),
            Just(JOB.to_owned()),
            Just(".vidstreamx".to_owned()),
            Just("jobs".to_owned()),
            Just(String::new()),
            Just("..".to_owned()),
            Just("film.mp4~0123456789abcdef".to_owned()),
            "[a-c]{1,2}",
        ];
        prop::collection::vec(part, 1..5)
            .prop_map(|parts| parts.join("/"))
            .prop_filter("not empty", |key| !key.is_empty())
    }

    proptest! {
        #[test]
        fn the_objects_of_an_upload_belong_to_it_and_to_no_other(one in key(), other in key(), path in "[a-z./]{1,20}") {
            let (one, other): (ObjectKey, ObjectKey) = (one.parse().unwrap(), other.parse().unwrap());
            let layout = Layout::new(&one, &JOB.parse().unwrap());
            let objects = [layout.stable("master.m3u8"), layout.stable("job.json"), layout.own(&path)];
            for object in &objects {
                prop_assert!(below_stem(layout.stem(), object).is_some(), "{object}");
                if one != other {
                    prop_assert_eq!(below_stem(&Layout::stem_of(&other), object), None, "{} {}", other, object);
                }
            }
            let records = [Layout::record(&JOB.parse().unwrap()), Layout::progress(&JOB.parse().unwrap())];
            for object in &records {
                prop_assert_eq!(below_stem(layout.stem(), object), None);
            }
        }
    }
}

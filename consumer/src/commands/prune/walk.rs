//! Finds the folders of jobs in the output bucket.
//!
//! Keys have any number of parts, so the walk descends from prefix to prefix. It does not descend into the
//! folders of jobs, which hold nearly all objects: 100,000 videos need about as many listings.

use futures::{Stream, StreamExt as _, future::try_join_all, stream};
use vidstreamx_job::{JobId, RECORDS_PREFIX};

use crate::{
    aws::error::CallError,
    aws::versions::{Marker, Page, Scope, VersionedBucket},
    commands::removal::kind::job_of_folder,
};

/// Number of concurrent listings. The memory for pending prefixes is at most this number of pages per level.
const CONCURRENT_LISTINGS: usize = 16;

/// A stable address that has folders of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stem {
    /// Without a trailing slash.
    pub name: String,
    pub jobs: Vec<JobId>,
}

/// A prefix to list, or the rest of one.
#[derive(Debug, PartialEq, Eq)]
struct Pending {
    prefix: String,
    from: Option<Marker>,
    /// Folders of jobs on its earlier pages.
    jobs: Vec<JobId>,
}

/// The walk's stack. The prefixes that were found last are listed first, so it holds few of them.
#[derive(Debug)]
struct Walk(Vec<Pending>);

impl Walk {
    fn new() -> Self {
        Self(vec![Pending { prefix: String::new(), from: None, jobs: Vec::new() }])
    }

    fn next(&mut self) -> Vec<Pending> {
        self.0.split_off(self.0.len().saturating_sub(CONCURRENT_LISTINGS))
    }

    /// Takes in a page of a prefix. Returns the stem when its last page is known.
    fn add(&mut self, mut listed: Pending, page: Page) -> Option<Stem> {
        let mut found = Vec::new();
        for folder in page.folders {
            match job_of_folder(&folder) {
                Some(job) => listed.jobs.push(job),
                None if folder == RECORDS_PREFIX => {}
                None => found.push(Pending { prefix: folder, from: None, jobs: Vec::new() }),
            }
        }
        let mut stem = None;
        if page.next.is_some() {
            self.0.push(Pending { from: page.next, ..listed });
        } else if let Some(name) = listed.prefix.strip_suffix('/').filter(|_| !listed.jobs.is_empty()) {
            stem = Some(Stem { name: name.to_owned(), jobs: listed.jobs });
        }
        self.0.extend(found);
        stem
    }
}

/// All stable addresses that have folders of jobs. After an error, the stream ends.
pub(super) fn stems(bucket: &VersionedBucket) -> impl Stream<Item = Result<Stem, CallError>> + '_ {
    let steps = stream::try_unfold(Walk::new(), move |mut walk| async move {
        let pending = walk.next();
        if pending.is_empty() {
            return Ok(None);
        }
        let listing = pending.into_iter().map(|pending| async move {
            let page = bucket.page(&pending.prefix, Scope::Children, pending.from.clone()).await?;
            Ok((pending, page))
        });
        let mut stems = Vec::new();
        for (pending, page) in try_join_all(listing).await? {
            stems.extend(walk.add(pending, page));
        }
        Ok(Some((stems, walk)))
    });
    steps.flat_map(|step| {
        let (stems, error) = match step {
            Ok(stems) => (stems, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        stream::iter(stems.into_iter().map(Ok).chain(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0123456789abcdef0123456789abcdef";

    /// Walks a set of keys, with pages of two entries.
    fn walked(keys: &[&str]) -> (Vec<Stem>, usize) {
        let (mut walk, mut stems, mut largest) = (Walk::new(), Vec::new(), 0);
        loop {
            let pending = walk.next();
            if pending.is_empty() {
                stems.sort_by(|one: &Stem, other| one.name.cmp(&other.name));
                return (stems, largest);
            }
            for pending in pending {
                let mut folders: Vec<_> = keys
                    .iter()
                    .filter_map(|key| {
                        let rest = key.strip_prefix(&pending.prefix)?;
                        Some(format!("{}{}/", pending.prefix, rest.split_once('/')?.0))
                    })
                    .collect();
                folders.sort();
                folders.dedup();
                let after = pending.from.clone().map(|marker| marker.key().to_owned()).unwrap_or_default();
                let mut rest = folders.into_iter().filter(|folder| *folder > after);
                let folders: Vec<_> = rest.by_ref().take(2).collect();
                let next = rest.next().and(folders.last()).map(|last| Marker::after(last));
                stems.extend(walk.add(pending, Page { folders, next, ..Page::default() }));
            }
            largest = largest.max(walk.0.len());
        }
    }

    #[test]
    fn stems_are_found_at_every_depth_and_jobs_are_not_walked() {
        let keys = [
            format!("a/film.mp4/{JOB}/p/video/1080p/init.mp4"),
            format!("film.mp4/{JOB}/job.json"),
            "film.mp4/0/x".to_owned(),
            "film.mp4/1/x".to_owned(),
            format!("film.mp4/extra.mp4/{JOB}/job.json"),
            format!("film.mp4/extra.mp4/{}/job.json", "f".repeat(32)),
            "notes/readme.txt".to_owned(),
            format!("{JOB}/master.m3u8"),
            format!(".vidstreamx/jobs/{JOB}.json"),
            format!(".vidstreamx/{JOB}/x"),
        ];
        let (stems, _) = walked(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        let names: Vec<_> = stems.iter().map(|stem| (stem.name.as_str(), stem.jobs.len())).collect();
        assert_eq!(names, [("a/film.mp4", 1), ("film.mp4", 1), ("film.mp4/extra.mp4", 2)]);
    }

    #[test]
    fn few_prefixes_of_a_large_folder_are_pending() {
        let keys: Vec<_> = (0..5_000).map(|index| format!("films/{index:05}.mp4/{JOB}/job.json")).collect();
        let (stems, largest) = walked(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(stems.len(), 5_000);
        assert!(largest < 10, "{largest}");
    }
}

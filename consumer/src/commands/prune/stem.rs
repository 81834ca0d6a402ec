//! Prunes the jobs of one stable address.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, future::try_join3, stream};
use jiff::{SignedDuration, Timestamp};
use tracing::warn;
use vidstreamx_job::{BucketName, JobId, Layout, State};

use super::{
    decide::{self, Action, Job, SAFE_AGE},
    references::References,
    walk::Stem,
};
use crate::{
    aws::error::CallError,
    aws::record_store::{LoadError, RecordStore as _, S3RecordStore, Stored},
    aws::versions::{Scope, Version, VersionedBucket},
    commands::removal::{
        kind::{CHECKPOINT, Kind, in_job_folder, last_part},
        remover::{RemovalError, Remover},
    },
};

/// Number of concurrent reads of records of one stem.
const CONCURRENT_READS: usize = 4;
/// The report in a job's folder.
const REPORT: &str = "job.json";
/// The playlist in a job's folder that returns to the stable address if the job's stream is taken back.
const REPLACED: &str = "replaced.m3u8";

/// What all stems have in common.
#[derive(Debug)]
pub(super) struct Pruner<'a> {
    pub bucket: VersionedBucket,
    pub records: S3RecordStore,
    pub uploads: BucketName,
    pub remover: Remover<'a>,
    pub superseded_for: Option<SignedDuration>,
    pub now: Timestamp,
}

/// The result for one stem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pruned {
    /// Whether a job runs, or its record cannot be read, so that everything stays.
    pub is_in_use: bool,
    /// Number of folders that may not be jobs' folders, and stay.
    pub unknown: u64,
}

/// The jobs of a stem, and the versions of their records.
#[derive(Debug, Default)]
struct Jobs {
    states: BTreeMap<JobId, Job>,
    etags: BTreeMap<JobId, String>,
}

impl Jobs {
    fn is_done(&self, id: &JobId) -> bool {
        matches!(self.states.get(id), Some(Job::Ended { state: State::Done, .. }))
    }
}

impl Pruner<'_> {
    /// Removes what is not used any more.
    ///
    /// # Errors
    /// The removal is incomplete.
    pub(super) async fn prune(&self, stem: &Stem) -> Result<Pruned, RemovalError> {
        let jobs = self.jobs(stem).await?;
        let unknown = jobs.states.values().filter(|job| **job == Job::Unknown).count() as u64;
        let pruned = Pruned { is_in_use: jobs.states.values().any(|job| *job == Job::InUse), unknown };
        if pruned.is_in_use {
            return Ok(pruned);
        }
        let shown = self.references(&stem.name).await?;
        let actions = self.actions(&stem.name, &jobs, &shown).await?;
        self.keep_from_returning(&stem.name, &jobs, &actions).await?;
        for (id, action) in actions.iter().filter(|(_, action)| **action != Action::Nothing) {
            let folder = folder(&stem.name, id);
            let is_unchanged = async || self.is_unchanged(&jobs, id).await;
            // Checkpoints go first: a task that starts meanwhile must not rely on segments that will be
            // deleted.
            let plans = self.folders(&folder).await?;
            for plan in &plans {
                let checkpoint = format!("{plan}{CHECKPOINT}/");
                self.remove_below(&folder, &checkpoint, |_| true, &is_unchanged).await?;
            }
            match action {
                Action::Nothing => {}
                Action::Remains if shown.jobs().contains(id) && jobs.is_done(id) => {
                    let (named, others): (Vec<_>, Vec<_>) =
                        plans.iter().partition(|plan| shown.names_plan(id, last_part(plan)));
                    for plan in others.into_iter().filter(|_| !named.is_empty()) {
                        if self.is_old(plan).await? {
                            self.remove_below(&folder, plan, is_stream, &is_unchanged).await?;
                        }
                    }
                }
                Action::Remains => {}
                Action::Leftovers => {
                    self.remove_below(&folder, &folder, is_stream_without_report, &is_unchanged).await?;
                }
                Action::Folder => self.remove_below(&folder, &folder, is_stream, &is_unchanged).await?,
                Action::All => {
                    self.remove_below(&folder, &folder, is_stream, &is_unchanged).await?;
                    self.remove_object(&Layout::record(id), Kind::Record, &is_unchanged).await?;
                }
            }
        }
        Ok(pruned)
    }

    async fn actions(
        &self,
        stem: &str,
        jobs: &Jobs,
        shown: &References,
    ) -> Result<BTreeMap<JobId, Action>, CallError> {
        let mut returning = References::default();
        for id in shown.jobs().iter().filter(|id| !jobs.is_done(id)) {
            returning.add_text(&self.replaced(stem, id).await?);
        }
        let mut actions =
            decide::actions(&jobs.states, shown.jobs(), returning.jobs(), self.superseded_for, self.now);
        for (id, action) in &mut actions {
            if action.removes_segments() && !self.is_old(&folder(stem, id)).await? {
                *action = Action::Nothing;
            }
        }
        Ok(actions)
    }

    async fn jobs(&self, stem: &Stem) -> Result<Jobs, CallError> {
        let mut read: Vec<(&JobId, Option<Stored>)> = Vec::new();
        let mut jobs = Jobs::default();
        let loading = stream::iter(&stem.jobs).map(|id| async move { (id, self.records.load(id).await) });
        let mut loading = std::pin::pin!(loading.buffer_unordered(CONCURRENT_READS));
        while let Some((id, loaded)) = loading.next().await {
            match loaded {
                Ok(stored) => read.push((id, stored)),
                Err(LoadError::Call(error)) => return Err(error),
                Err(unreadable @ LoadError::Unreadable { .. }) => {
                    warn!("the video counts as running: {unreadable}");
                    jobs.states.insert(id.clone(), Job::InUse);
                }
            }
        }
        let records: Vec<_> =
            read.iter().filter_map(|(_, stored)| Some(stored.as_ref()?.record.clone())).collect();
        for (id, stored) in read {
            let record = stored.as_ref().map(|stored| &stored.record);
            let job = decide::job(&stem.name, id, record, &self.uploads, &records);
            jobs.states.insert(id.clone(), job);
            jobs.etags.extend(stored.map(|stored| (id.clone(), stored.etag)));
        }
        Ok(jobs)
    }

    /// The folders that the objects at the stable address name.
    async fn references(&self, stem: &str) -> Result<References, CallError> {
        let read = |name: &str| self.read(format!("{stem}/{name}"));
        let (master, manifest, report) =
            try_join3(read("master.m3u8"), read("manifest.mpd"), read(REPORT)).await?;
        let mut references = References::default();
        for text in [master, manifest].into_iter().flatten() {
            references.add_text(&String::from_utf8_lossy(&text));
        }
        if let Some(report) = report {
            references.add_report(&report);
        }
        Ok(references)
    }

    /// Removes the playlists that name a folder which is about to be removed, from folders that stay.
    async fn keep_from_returning(
        &self,
        stem: &str,
        jobs: &Jobs,
        actions: &BTreeMap<JobId, Action>,
    ) -> Result<(), RemovalError> {
        let (removed, kept): (Vec<_>, Vec<_>) =
            actions.iter().partition(|(_, action)| action.removes_segments());
        if removed.is_empty() {
            return Ok(());
        }
        for (id, _) in kept {
            let mut named = References::default();
            named.add_text(&self.replaced(stem, id).await?);
            if removed.iter().any(|(job, _)| named.jobs().contains(job)) {
                let key = format!("{stem}/{id}/{REPLACED}");
                let is_unchanged = async || self.is_unchanged(jobs, id).await;
                self.remove_object(&key, Kind::Stream, &is_unchanged).await?;
            }
        }
        Ok(())
    }

    /// Removes the objects below a prefix in a job's folder whose paths in the folder are wanted.
    async fn remove_below(
        &self,
        folder: &str,
        prefix: &str,
        is_wanted: fn(&str) -> bool,
        is_unchanged: &impl AsyncFn() -> Result<bool, CallError>,
    ) -> Result<(), RemovalError> {
        let objects = self.bucket.pages(prefix, Scope::All).map_ok(|page| page.versions);
        let kind = |version: &Version| {
            let path = version.key.strip_prefix(folder).filter(|path| is_wanted(path))?;
            Some(in_job_folder(path))
        };
        self.remover.remove(&self.bucket, objects, kind, is_unchanged).await
    }

    async fn remove_object(
        &self,
        key: &str,
        kind: Kind,
        is_unchanged: &impl AsyncFn() -> Result<bool, CallError>,
    ) -> Result<(), RemovalError> {
        let versions = self.bucket.object(key).await?;
        let page = stream::once(async { Ok(versions) });
        self.remover.remove(&self.bucket, page, |_| Some(kind), is_unchanged).await
    }

    async fn replaced(&self, stem: &str, id: &JobId) -> Result<String, CallError> {
        let text = self.read(format!("{stem}/{id}/{REPLACED}")).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn read(&self, key: String) -> Result<Option<Vec<u8>>, CallError> {
        Ok(self.records.get(&key, i64::MAX).await?.map(|(content, _)| content))
    }

    /// Whether the job's record is still the one by which the job was judged.
    async fn is_unchanged(&self, jobs: &Jobs, id: &JobId) -> Result<bool, CallError> {
        let record = self.records.get(&Layout::record(id), i64::MAX).await?;
        Ok(record.map(|(_, etag)| etag).as_ref() == jobs.etags.get(id))
    }

    /// The folders directly below a prefix.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, CallError> {
        let pages = self.bucket.pages(prefix, Scope::Children);
        let folders: Vec<Vec<_>> = pages.map_ok(|page| page.folders).try_collect().await?;
        Ok(folders.concat())
    }

    /// Whether nothing below a prefix was written for [`SAFE_AGE`].
    async fn is_old(&self, prefix: &str) -> Result<bool, CallError> {
        let mut pages = std::pin::pin!(self.bucket.pages(prefix, Scope::All));
        while let Some(page) = pages.try_next().await? {
            if !page.versions.iter().all(|version| decide::is_older(self.now, version.written, SAFE_AGE)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Checkpoints are removed before the rest of a folder, and are not counted again.
fn is_stream(path: &str) -> bool {
    in_job_folder(path) == Kind::Stream
}

fn is_stream_without_report(path: &str) -> bool {
    is_stream(path) && path != REPORT
}

fn folder(stem: &str, id: &JobId) -> String {
    format!("{stem}/{id}/")
}

//! The stable address of a source key: the master playlist and the MPD that point to the current stream.

use std::time::Instant;

use bytes::Bytes;
use vidstreamx_job::JobId;

use crate::{
    source::object::PinnedObject,
    store::{CachePolicy, PLAYLIST, Store, StoreError},
};

use super::PublishError;

/// The master playlist.
pub(crate) const MASTER: &str = "master.m3u8";
const MANIFEST: &str = "manifest.mpd";
/// A file in the job's folder: the master playlist that this job's master playlist replaced.
const REPLACED: &str = "replaced.m3u8";
const MPD: &str = "application/dash+xml";

/// One job's access to the stable address.
#[derive(Debug)]
pub(super) struct StableAddress {
    store: Store,
    job_id: JobId,
    /// The upload that must still be current when the stream takes the address; absent for a local file.
    source: Option<PinnedObject>,
    started: Instant,
    /// Seconds from the task's start to the first playable master playlist; absent before that.
    playable_seconds: Option<f64>,
}

impl StableAddress {
    pub(super) fn new(store: Store, job_id: JobId, source: Option<PinnedObject>, started: Instant) -> Self {
        Self { store, job_id, source, started, playable_seconds: None }
    }

    pub(super) fn playable_seconds(&self) -> Option<f64> {
        self.playable_seconds
    }

    /// Publishes the growing stream, and keeps the previous master playlist for [`retract`].
    ///
    /// # Errors
    /// The source was replaced, or the store fails.
    pub(super) async fn switch(&mut self, master: Vec<u8>) -> Result<(), PublishError> {
        let before = async { Ok(self.store.get(MASTER).await?) };
        let ((), before) = tokio::try_join!(self.check_source(), before)?;
        if let Some(before) = before.filter(|before| !is_of(before, &self.job_id)) {
            let replaced = format!("{}/{REPLACED}", self.job_id);
            self.store.put(&replaced, CachePolicy::Replaceable(PLAYLIST), before).await?;
        }
        self.store.put(MASTER, CachePolicy::GrowingPlaylist, master.into()).await?;
        let playable_seconds = self.started.elapsed().as_secs_f64();
        tracing::info!(playable_seconds, master = self.store.locate(MASTER), "playable");
        self.playable_seconds = Some(playable_seconds);
        Ok(())
    }

    /// Checks that the source is still current: an obsolete stream must not replace a newer upload's stream.
    ///
    /// # Errors
    /// The source was replaced or removed, or S3 fails.
    pub(super) async fn check_source(&self) -> Result<(), PublishError> {
        match &self.source {
            Some(source) => source.check_current().await.map_err(PublishError::Source),
            None => Ok(()),
        }
    }

    /// Publishes the complete stream. Removes the file of a format that the profile leaves out, because an
    /// earlier upload may have written it.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn complete(
        &self,
        manifest: Option<Vec<u8>>,
        master: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        // The master playlist is written last, because most players use it.
        for (path, content_type, content) in [(MANIFEST, MPD, manifest), (MASTER, PLAYLIST, master)] {
            match content {
                Some(content) => {
                    self.store.put(path, CachePolicy::Replaceable(content_type), content.into()).await?;
                }
                None => self.store.delete(path).await?,
            }
        }
        Ok(())
    }
}

/// Restores the master playlist that this job replaced, for a stream that viewers must not keep. Leaves the
/// address alone if it belongs to another job now.
///
/// # Errors
/// The store fails.
pub(crate) async fn retract(store: &Store, job_id: &JobId) -> Result<(), StoreError> {
    match store.get(MASTER).await? {
        Some(current) if is_of(&current, job_id) => {}
        _ => return Ok(()),
    }
    match store.get(&format!("{job_id}/{REPLACED}")).await? {
        Some(before) => {
            store.put(MASTER, CachePolicy::Replaceable(PLAYLIST), before).await?;
            Ok(())
        }
        None => store.delete(MASTER).await,
    }
}

/// Returns true if a master playlist points into the job's folder.
fn is_of(master: &Bytes, job_id: &JobId) -> bool {
    String::from_utf8_lossy(master).contains(&format!("{job_id}/"))
}

#[cfg(test)]
mod tests {
    use crate::fixtures::folder_store;

    use super::*;

    fn job(digit: &str) -> JobId {
        digit.repeat(32).parse().unwrap()
    }

    fn master(job: &JobId) -> Bytes {
        format!("#EXTM3U\n{job}/video/720p/index.m3u8\n").into()
    }

    async fn at_the_stable_address(
        now: &JobId,
        replaced: Option<&JobId>,
        retracted: &JobId,
    ) -> Option<Bytes> {
        let (_folder, store) = folder_store();
        store.put(MASTER, CachePolicy::Replaceable(PLAYLIST), master(now)).await.unwrap();
        if let Some(replaced) = replaced {
            let replaced_path = format!("{retracted}/{REPLACED}");
            store.put(&replaced_path, CachePolicy::Replaceable(PLAYLIST), master(replaced)).await.unwrap();
        }
        retract(&store, retracted).await.unwrap();
        store.get(MASTER).await.unwrap()
    }

    #[tokio::test]
    async fn retracting_restores_the_replaced_stream() {
        let (old, ours, newer) = (job("a"), job("b"), job("c"));
        assert_eq!(at_the_stable_address(&ours, Some(&old), &ours).await, Some(master(&old)));
        assert_eq!(at_the_stable_address(&ours, None, &ours).await, None);
        // The address belongs to a newer upload's stream now.
        assert_eq!(at_the_stable_address(&newer, Some(&old), &ours).await, Some(master(&newer)));
    }
}

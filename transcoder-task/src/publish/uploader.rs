//! Uploads the segments of one rendition, from FFmpeg's pipe.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::{net::unix::pipe, sync::mpsc};

use crate::{
    package::{
        captions::Captions,
        file_names,
        init_segment::{CmafError, Init},
        presentation::Published,
        segmenter::{self, Output, Segment, SegmentationRules},
        splice,
    },
    store::{CachePolicy, Store, Tag},
};

use super::{PublishError, checkpoint::Entry, lockstep::Lockstep};

/// Concurrent uploads of a rendition: enough to hide a round trip, few enough to bound memory.
const UPLOADS_PER_RENDITION: usize = 2;
/// Concurrent uploads of a rendition in lockstep, whose other segments wait in its pipe.
const UPLOADS_IN_STEP: usize = 1;

pub(super) enum Event {
    Init { track: usize, init: Init },
    Segment { track: usize, entry: Entry, is_last: bool },
}

pub(super) struct Uploader<'a> {
    pub(super) store: Store,
    pub(super) folder: String,
    pub(super) track: usize,
    pub(super) policy: CachePolicy,
    /// The init segment of an earlier attempt.
    pub(super) init: Option<Init>,
    pub(super) lockstep: &'a Lockstep,
    /// The interval that follows the encoded prefix, if the rung has one. An earlier attempt may have encoded
    /// it.
    pub(super) prefix_until: Option<i64>,
    /// The H.264 level to state for a copied rung.
    pub(super) level: Option<u8>,
    /// True for a copied rung, whose FFmpeg process must not run ahead of the others.
    pub(super) in_lockstep: bool,
}

impl Uploader<'_> {
    /// Uploads the outputs in order, and sends an event for each. `encoded_prefix` is the pipe of the encoded
    /// prefix, if this attempt has one; `first_number` is the number of the first segment.
    ///
    /// # Errors
    /// FFmpeg's output is not valid or does not match the source's sample index, the init segment differs
    /// from the earlier attempt's, or the store fails.
    pub(super) async fn run(
        self,
        encoded_prefix: Option<pipe::Receiver>,
        pipe: pipe::Receiver,
        rules: SegmentationRules,
        first_number: usize,
        events: mpsc::Sender<Event>,
    ) -> Result<(), PublishError> {
        let outputs = match encoded_prefix.zip(self.prefix_until) {
            None => segmenter::outputs(pipe, rules, first_number).left_stream(),
            Some((encoded_prefix, until)) => {
                splice::outputs_after_prefix(encoded_prefix, until, pipe, rules, first_number).right_stream()
            }
        };
        outputs
            .map_err(|error| self.invalid(&error))
            .map_ok(|output| self.upload(output))
            .try_buffered(if self.in_lockstep { UPLOADS_IN_STEP } else { UPLOADS_PER_RENDITION })
            .try_for_each(|event| async {
                // The receiver is dropped only after its own error, which is the one to report.
                let _ = events.send(event).await;
                Ok(())
            })
            .await?;
        self.lockstep.reach(self.track, i64::MAX);
        Ok(())
    }

    fn invalid(&self, error: &CmafError) -> PublishError {
        match error {
            // The source does not match its sample index.
            CmafError::Splice(_) | CmafError::Departure(_) => {
                PublishError::Mismatch(format!("{}: {error}", self.folder))
            }
            _ => PublishError::Output { rendition: self.folder.clone(), reason: error.to_string() },
        }
    }

    async fn upload(&self, output: Output) -> Result<Event, PublishError> {
        match output {
            Output::Init(mut init) => {
                if let Some(level) = self.level {
                    init = init.with_level(level).map_err(|error| self.invalid(&error))?;
                }
                let Some(published) = &self.init else {
                    self.put(file_names::INIT_NAME, init.bytes.clone()).await?;
                    return Ok(Event::Init { track: self.track, init });
                };
                // If this attempt begins after the encoded prefix, its init segment lacks the parameter sets
                // of the prefix.
                let whole = match self.prefix_until {
                    Some(_) => init.with_parameter_sets_of(published).ok(),
                    None => Some(init),
                };
                let same = whole.filter(|init| init.bytes == published.bytes);
                let init = same.ok_or_else(|| {
                    PublishError::Resume(format!("the init segment of {} differs", self.folder))
                })?;
                Ok(Event::Init { track: self.track, init })
            }
            Output::Segment(segment) => {
                if self.in_lockstep {
                    self.lockstep.follow(segment.interval).await;
                }
                let published = Published {
                    start_ticks: segment.start_ticks,
                    duration_ticks: segment.duration_ticks,
                    samples: segment.samples,
                    repeats: segment.repeats,
                    repeated_ticks: segment.repeated_ticks,
                    bytes: segment.bytes.len() as u64,
                    key_bytes: segment.key_bytes,
                };
                let captions = Captions::of_segment(&segment.bytes);
                let tag = self.put(&file_names::segment_name(segment.number), segment.bytes.clone()).await?;
                let Segment { interval, starts_with_keyframe, is_last, .. } = segment;
                self.lockstep.reach(self.track, interval);
                let entry = Entry { interval, published, starts_with_keyframe, captions, tag };
                Ok(Event::Segment { track: self.track, entry, is_last })
            }
        }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<Tag, PublishError> {
        Ok(self.store.put(&format!("{}/{name}", self.folder), self.policy, bytes).await?)
    }
}

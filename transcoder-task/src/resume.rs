//! Where an attempt goes on that finds what an earlier one published: a pure function of the plan and of that.

use crate::{checkpoint::Kept, plan::Plan};

/// Samples in a packet of AAC-LC.
const PACKET_SAMPLES: u64 = 1024;
/// The encoder of sound is given this much of what is published already, about half a second: a packet overlaps with the
/// one before, and what the encoder takes for granted it has learnt by then.
const FED_PACKETS: u64 = 24;
/// FFmpeg begins this much earlier than anything is wanted: decoders of sound need a few packets to get going, and behind
/// a keyframe that is no closed one (open GOP) the first pictures are broken.
const HEAD_START_SECONDS: f64 = 1.0;
/// A picture that lasts for less than this behind a boundary may have no frame there: containers round, and may lie.
const SURE_OF_A_FRAME_SECONDS: f64 = 0.5;

/// Where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The first interval between boundaries to be made.
    pub interval: i64,
    /// Where FFmpeg begins to read, in seconds.
    pub seek_seconds: f64,
    /// In the plan's order.
    pub sounds: Vec<StartOfSound>,
    /// The first still to be made.
    pub still: usize,
}

/// Where a track of sound goes on, in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartOfSound {
    /// The first packet to be published.
    pub first_ticks: u64,
    /// What the encoder is given begins here, a whole number of packets earlier.
    pub fed_ticks: u64,
}

impl Start {
    /// The last boundary up to which all renditions are there, so that every rung has a frame to begin with. Cuts off
    /// what is published behind it. `None` if that is the beginning.
    pub fn after(plan: &Plan, kept: &mut Kept) -> Option<Self> {
        let last = |track: &crate::checkpoint::Track| track.entries.last().map(|entry| entry.interval);
        let complete = kept.tracks.iter().map(last).min()??;
        let mut interval = complete + 1;
        if let (Some(picture), Some(rung)) = (&plan.picture, kept.tracks.first()) {
            let whole = rung.entries.iter().take_while(|entry| entry.interval < interval);
            let (mut frames, mut last_interval) = (0, None);
            for entry in whole {
                frames += entry.published.samples as u64;
                last_interval = Some(entry.interval);
            }
            let begins = plan.boundaries.start_seconds(interval);
            let sure = begins.is_some_and(|begins| begins + SURE_OF_A_FRAME_SECONDS < picture.end_seconds)
                && picture.frames.is_none_or(|all| frames < all);
            if !sure {
                interval = last_interval?;
            }
        }
        for track in &mut kept.tracks {
            track.entries.retain(|entry| entry.interval < interval);
        }
        if kept.tracks.iter().any(|track| track.entries.is_empty()) {
            return None;
        }
        let mut wanted = vec![plan.boundaries.start_seconds(interval)?];
        let mut sounds = Vec::with_capacity(plan.audio.len());
        for (audio, track) in plan.audio.iter().zip(kept.tracks.iter().skip(plan.rungs.len())) {
            let (first, last) = (track.entries.first()?.published, track.entries.last()?.published);
            let first_ticks = last.start_ticks + last.duration_ticks;
            let packets = ((first_ticks - first.start_ticks) / PACKET_SAMPLES).min(FED_PACKETS);
            let fed_ticks = first_ticks - packets * PACKET_SAMPLES;
            wanted.push(fed_ticks as f64 / f64::from(audio.sample_rate));
            sounds.push(StartOfSound { first_ticks, fed_ticks });
        }
        let still = kept.stills.len();
        if plan.picture.is_some() {
            wanted.push(still as f64 * crate::images::interval_seconds(plan.duration_seconds));
        }
        let earliest = wanted.into_iter().fold(f64::MAX, f64::min);
        Some(Self { interval, seek_seconds: (earliest - HEAD_START_SECONDS).max(0.0), sounds, still })
    }
}

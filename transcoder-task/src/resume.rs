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
    /// what is published behind it. `None` if that is the beginning, or one at which not all renditions are cut: that is so
    /// near the beginning that all is better made again.
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
            // Behind the last keyframe of a source it begins where the picture ends.
            let begins = plan.boundaries.start_seconds(interval);
            let sure = begins + SURE_OF_A_FRAME_SECONDS < picture.end_seconds
                && picture.frames.is_none_or(|all| frames < all);
            if !sure {
                interval = last_interval?;
            }
        }
        if !plan.boundaries.all_begin(interval) {
            return None;
        }
        for track in &mut kept.tracks {
            track.entries.retain(|entry| entry.interval < interval);
        }
        if kept.tracks.iter().any(|track| track.entries.is_empty()) {
            return None;
        }
        let mut wanted = vec![plan.boundaries.start_seconds(interval)];
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        boundaries::{Boundaries, Boundary},
        checkpoint::{Entry, Track},
        cmaf::Init,
        plan::{AudioRendition, Copyable},
        playlist::Published,
        probe::{Media, Video},
        profile::Profile,
        store::Tag,
    };

    /// Of 25 frames a second in two rungs, with sound if it lasts.
    fn plan(seconds: f64, sound_seconds: f64) -> Plan {
        let video = Video {
            width: 640,
            height: 360,
            frame_rate: 25.0,
            duration_seconds: seconds,
            pixel_aspect: 1.0,
            time_base: "1/25".into(),
            ..Video::default()
        };
        let media = Media { video: Some(video), duration_seconds: seconds, ..Media::default() };
        let mut plan = Plan::new(&media, &Copyable::default(), &Profile::default());
        let at = |at_seconds: f64| Boundary { at_seconds, before_seconds: (at_seconds - 0.04).max(0.0) };
        let every_four_seconds = (0..15).map(|number| at(f64::from(number) * 4.0)).collect();
        plan.boundaries = Boundaries::at(every_four_seconds, Vec::new(), 60.0, 4.0).unwrap();
        plan.audio =
            Vec::from_iter((sound_seconds > 0.0).then(|| AudioRendition::of_tests(1, sound_seconds)));
        plan
    }

    fn track(intervals: std::ops::Range<i64>, samples: usize, segment_ticks: u64) -> Track {
        let entries = intervals.map(|interval| Entry {
            interval,
            published: Published {
                start_ticks: interval.unsigned_abs() * segment_ticks,
                duration_ticks: segment_ticks,
                samples,
                bytes: 1000,
                key_bytes: 10,
            },
            starts_with_keyframe: true,
            tag: Tag::of(b""),
        });
        let init = Init { bytes: Bytes::new(), codecs: String::new(), timescale: 1 };
        Track { init, entries: entries.collect(), announced: 0 }
    }

    fn pictures(segments: i64) -> Track {
        track(0..segments, 100, 100)
    }

    /// In packets, which are no whole number of segments.
    fn sound(segments: i64) -> Track {
        track(0..segments, 188, 188 * PACKET_SAMPLES)
    }

    fn kept(tracks: Vec<Track>) -> Kept {
        Kept { tracks, stills: vec![Bytes::new(); 30] }
    }

    fn lengths(kept: &Kept) -> Vec<usize> {
        kept.tracks.iter().map(|track| track.entries.len()).collect()
    }

    #[test]
    fn it_goes_on_behind_the_last_interval_that_all_renditions_have() {
        let mut kept = kept(vec![pictures(5), pictures(3), sound(4)]);
        let start = Start::after(&plan(60.0, 60.0), &mut kept).unwrap();
        assert_eq!((start.interval, lengths(&kept)), (3, vec![3, 3, 3]));
        let first_ticks = 3 * 188 * PACKET_SAMPLES;
        let sounds = [StartOfSound { first_ticks, fed_ticks: first_ticks - 24 * PACKET_SAMPLES }];
        assert_eq!((start.sounds.as_slice(), start.still), (sounds.as_slice(), 30));
        // Half a second of sound and a second for the decoders before 12.03 s.
        assert!((10.4..10.6).contains(&start.seek_seconds), "{}", start.seek_seconds);
    }

    #[test]
    fn it_goes_on_where_all_renditions_are_cut() {
        let mut plan = plan(60.0, 0.0);
        let at = |at_seconds: f64| Boundary { at_seconds, before_seconds: at_seconds - 0.04 };
        let keyframes = [0.0, 4.0, 16.0, 20.0, 24.0].map(at).to_vec();
        plan.boundaries = Boundaries::at(keyframes, [8.0, 12.0].map(at).to_vec(), 60.0, 4.0).unwrap();
        // Between 4 and 16 s it has one segment.
        let copied = |intervals: &[i64]| {
            let mut track = pictures(20);
            track.entries.retain(|entry| intervals.contains(&entry.interval));
            track
        };
        let interval = |of_the_copied: &[i64], segments| {
            let mut kept = kept(vec![copied(of_the_copied), pictures(segments)]);
            Start::after(&plan, &mut kept).map(|start| (start.interval, lengths(&kept)))
        };
        assert_eq!(interval(&[0, 3, 4, 5], 1), Some((1, vec![1, 1])));
        assert_eq!(
            [2, 3].map(|segments| interval(&[0, 3, 4, 5], segments)),
            [None, None],
            "all is made again"
        );
        assert_eq!(interval(&[0, 3, 4, 5], 4), Some((4, vec![2, 4])));
        assert_eq!(interval(&[0, 3], 6), Some((4, vec![2, 4])));
        assert_eq!(interval(&[0], 6), Some((1, vec![1, 1])));
    }

    #[test]
    fn what_no_rendition_lacks_is_needed_to_go_on() {
        let plan = plan(60.0, 60.0);
        for tracks in [
            vec![pictures(0), pictures(3), sound(4)],
            vec![pictures(3), pictures(3), sound(0)],
            vec![pictures(3), pictures(3), track(3..5, 188, 1024)],
            vec![],
        ] {
            assert_eq!(Start::after(&plan, &mut kept(tracks)), None);
        }
    }

    #[test]
    fn a_rung_always_has_a_frame_to_begin_with() {
        let interval = |plan: &Plan| {
            let mut kept = kept(vec![pictures(3), pictures(3)]);
            Start::after(plan, &mut kept).map(|start| (start.interval, lengths(&kept)))
        };
        assert_eq!(interval(&plan(60.0, 0.0)), Some((3, vec![3, 3])));
        // The picture ends about here, nobody knows when it ends, or all of its frames are there.
        assert_eq!(interval(&plan(12.3, 0.0)), Some((2, vec![2, 2])));
        assert_eq!(interval(&plan(0.0, 0.0)), Some((2, vec![2, 2])));
        let mut plan = plan(60.0, 0.0);
        let mut frames = |frames| {
            if let Some(picture) = &mut plan.picture {
                picture.frames = Some(frames);
            }
            interval(&plan)
        };
        assert_eq!(frames(300), Some((2, vec![2, 2])));
        assert_eq!(frames(301), Some((3, vec![3, 3])));
        // The last of the source's keyframes is behind.
        let at = |at_seconds: f64| Boundary { at_seconds, before_seconds: (at_seconds - 0.04).max(0.0) };
        plan.boundaries = Boundaries::at([0.0, 5.0, 12.0].map(at).to_vec(), Vec::new(), 60.0, 4.0).unwrap();
        assert_eq!(interval(&plan), Some((2, vec![2, 2])));
    }

    #[test]
    fn stills_that_are_missing_are_made_from_earlier_on() {
        let mut kept = Kept { stills: vec![Bytes::new(); 5], ..kept(vec![pictures(3), pictures(3)]) };
        let start = Start::after(&plan(60.0, 0.0), &mut kept).unwrap();
        assert_eq!((start.interval, start.still, start.seek_seconds), (3, 5, 4.0));
    }

    #[test]
    fn a_video_that_has_just_begun_is_read_from_its_beginning() {
        let mut kept = kept(vec![pictures(1), pictures(1), track(0..1, 43, 43 * PACKET_SAMPLES)]);
        let start = Start::after(&plan(60.0, 60.0), &mut kept).unwrap();
        assert_eq!((start.interval, start.seek_seconds), (1, 0.0));
        let sounds = [StartOfSound { first_ticks: 43 * PACKET_SAMPLES, fed_ticks: 19 * PACKET_SAMPLES }];
        assert_eq!(start.sounds, sounds);
    }
}

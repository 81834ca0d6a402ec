//! Decides where an attempt resumes: a pure function of the plan and the recovered segments.

use crate::plan::{
    model::{Picture, Plan},
    resume_point::{AudioResumePoint, HEAD_START_SECONDS, ResumePoint},
    segmentation::Boundaries,
    still_interval,
};

use super::checkpoint::{Entry, Recovered};

/// Samples in a packet of AAC-LC.
const PACKET_SAMPLES: u64 = 1024;
/// Number of published packets (about half a second) whose samples the audio encoder gets again. Packets
/// overlap, and the encoder must reach the same state as in the earlier attempt.
const FED_PACKETS: u64 = 24;
/// If the video seems to end within this time after a boundary, the boundary may have no frame after it,
/// because the end times in containers are rounded or wrong.
const MIN_VIDEO_SECONDS: f64 = 0.5;

/// The plan's properties that decide where an attempt may resume.
#[derive(Debug, Clone)]
pub(crate) struct ResumeRule {
    boundaries: Boundaries,
    picture: Option<Picture>,
}

impl ResumeRule {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { boundaries: plan.boundaries.clone(), picture: plan.picture.clone() }
    }

    /// The first interval to encode after these segments; `None` for the beginning. Every rung has a frame in
    /// that interval, and no later attempt replaces earlier intervals.
    #[must_use]
    pub(crate) fn next<'a>(&self, tracks: impl Iterator<Item = &'a [Entry]> + Clone) -> Option<i64> {
        let complete = tracks.clone().map(|entries| entries.last().map(|entry| entry.interval)).min()??;
        let next = self.with_frame(complete + 1, tracks.clone().next()?)?;
        let mut begun = tracks.map(|entries| entries.first().is_some_and(|first| first.interval < next));
        begun.all(|begun| begun).then_some(next)
    }

    /// `next`, or the first rung's last interval if `next` may have no frame.
    fn with_frame(&self, next: i64, rung: &[Entry]) -> Option<i64> {
        let Some(picture) = &self.picture else { return Some(next) };
        let rung = &rung[..rung.partition_point(|entry| entry.interval < next)];
        let frames: usize = rung.iter().map(|entry| entry.published.samples).sum();
        // After the last boundary of a copied rung, the next interval begins after the end of the video.
        let begins = self.boundaries.start_seconds(next);
        let has_frame = begins + MIN_VIDEO_SECONDS < picture.end_seconds
            && (picture.hold.is_some() || picture.frames.is_none_or(|all| (frames as u64) < all));
        if has_frame { Some(next) } else { rung.last().map(|entry| entry.interval) }
    }
}

/// Finds the last boundary that all renditions have reached, and removes later segments from `recovered`.
/// `None` means the beginning of the source.
#[must_use]
pub(crate) fn resume_point(plan: &Plan, recovered: &mut Recovered) -> Option<ResumePoint> {
    let interval =
        ResumeRule::new(plan).next(recovered.tracks.iter().map(|track| track.entries.as_slice()))?;
    for track in &mut recovered.tracks {
        track.entries.retain(|entry| entry.interval < interval);
    }
    if recovered.tracks.iter().any(|track| track.entries.is_empty()) {
        return None;
    }
    let video_seconds = match (&plan.picture, recovered.tracks.first()) {
        (Some(_), Some(rung)) => {
            let last = rung.entries.last()?.published;
            (last.start_ticks + last.duration_ticks) as f64 / f64::from(rung.init.timescale.max(1))
        }
        _ => 0.0,
    };
    let mut needed_seconds = vec![plan.boundaries.start_seconds(interval)];
    let mut audio_points = Vec::with_capacity(plan.audio.len());
    for (audio, track) in plan.audio.iter().zip(recovered.tracks.iter().skip(plan.rungs.len())) {
        let (first, last) = (track.entries.first()?.published, track.entries.last()?.published);
        let first_ticks = last.start_ticks + last.duration_ticks;
        let packets = ((first_ticks - first.start_ticks) / PACKET_SAMPLES).min(FED_PACKETS);
        let fed_ticks = first_ticks - packets * PACKET_SAMPLES;
        needed_seconds.push(fed_ticks as f64 / f64::from(audio.sample_rate));
        audio_points.push(AudioResumePoint { first_ticks, fed_ticks });
    }
    let still = recovered.stills.taken();
    if plan.picture.is_some() {
        needed_seconds.push(still as f64 * still_interval::seconds(plan.duration_seconds));
    }
    let earliest = needed_seconds.into_iter().fold(f64::MAX, f64::min);
    let seek_seconds = (earliest - HEAD_START_SECONDS).max(0.0);
    Some(ResumePoint { interval, seek_seconds, video_seconds, audio: audio_points, still })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        analysis::copyable_tracks::FrameTime,
        analysis::media::{Media, Video},
        config::profile::Profile,
        package::init_segment::Init,
        package::presentation::Published,
        package::stills::Stills,
        plan::copyable::Copyable,
        plan::model::AudioRendition,
        publish::checkpoint::RecoveredTrack,
        store::Tag,
    };

    /// A plan of 25 frames per second in two rungs, with audio of this duration if it is not 0.
    fn plan(seconds: f64, audio_seconds: f64) -> Plan {
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
        let copyable = Copyable { longest_frame_seconds: Some(0.04), ..Copyable::default() };
        let mut plan = Plan::new(&media, &copyable, &Profile::default());
        let at = |at_seconds: f64| FrameTime { at_seconds, before_seconds: (at_seconds - 0.04).max(0.0) };
        let every_four_seconds = (0..15).map(|number| at(f64::from(number) * 4.0)).collect();
        plan.boundaries = Boundaries::at(every_four_seconds, at(60.0), 4.0).unwrap();
        plan.audio =
            Vec::from_iter((audio_seconds > 0.0).then(|| AudioRendition::of_tests(1, audio_seconds)));
        plan
    }

    fn track(intervals: std::ops::Range<i64>, samples: usize, segment_ticks: u64) -> RecoveredTrack {
        let entries = intervals.map(|interval| Entry {
            interval,
            published: Published {
                start_ticks: interval.unsigned_abs() * segment_ticks,
                duration_ticks: segment_ticks,
                samples,
                repeats: 0,
                repeated_ticks: 0,
                bytes: 1000,
                key_bytes: 10,
            },
            starts_with_keyframe: true,
            captions: crate::package::captions::Captions::NONE,
            tag: Tag::of(b""),
        });
        let init = Init { bytes: Bytes::new(), codecs: String::new(), timescale: 25 };
        RecoveredTrack { init, entries: entries.collect() }
    }

    fn video(segments: i64) -> RecoveredTrack {
        track(0..segments, 100, 100)
    }

    /// Audio segments, whose packets do not align with the video segments.
    fn audio(segments: i64) -> RecoveredTrack {
        track(0..segments, 188, 188 * PACKET_SAMPLES)
    }

    fn stills(count: usize) -> Stills {
        let mut stills = Stills::every(1.0);
        (0..count).for_each(|_| stills.take(Bytes::new()));
        stills
    }

    fn recovered(tracks: Vec<RecoveredTrack>) -> Recovered {
        Recovered { tracks, stills: stills(30) }
    }

    fn lengths(recovered: &Recovered) -> Vec<usize> {
        recovered.tracks.iter().map(|track| track.entries.len()).collect()
    }

    #[test]
    fn attempts_resume_after_the_last_interval_of_all_renditions() {
        let mut recovered = recovered(vec![video(5), video(3), audio(4)]);
        let point = resume_point(&plan(60.0, 60.0), &mut recovered).unwrap();
        assert_eq!((point.interval, lengths(&recovered)), (3, vec![3, 3, 3]));
        let first_ticks = 3 * 188 * PACKET_SAMPLES;
        let audio_points = [AudioResumePoint { first_ticks, fed_ticks: first_ticks - 24 * PACKET_SAMPLES }];
        assert_eq!((point.audio.as_slice(), point.still), (audio_points.as_slice(), 30));
        assert_eq!(point.video_seconds, 12.0);
        // Half a second of audio and a second for the decoders before 12.03 s.
        assert!((10.4..10.6).contains(&point.seek_seconds), "{}", point.seek_seconds);
    }

    #[test]
    fn every_rendition_needs_segments_to_resume() {
        let plan = plan(60.0, 60.0);
        for tracks in [
            vec![video(0), video(3), audio(4)],
            vec![video(3), video(3), audio(0)],
            vec![video(3), video(3), track(3..5, 188, 1024)],
            vec![],
        ] {
            assert_eq!(resume_point(&plan, &mut recovered(tracks)), None);
        }
    }

    #[test]
    fn a_resumed_rung_has_a_first_frame() {
        let interval = |plan: &Plan| {
            let mut recovered = recovered(vec![video(3), video(3)]);
            resume_point(plan, &mut recovered).map(|point| (point.interval, lengths(&recovered)))
        };
        assert_eq!(interval(&plan(60.0, 0.0)), Some((3, vec![3, 3])));
        // The video ends here, its end is unknown, or all its frames are published.
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
        // After the source's last keyframe.
        let at = |at_seconds: f64| FrameTime { at_seconds, before_seconds: (at_seconds - 0.04).max(0.0) };
        plan.boundaries = Boundaries::at([0.0, 5.0, 12.0].map(at).to_vec(), at(60.0), 4.0).unwrap();
        assert_eq!(interval(&plan), Some((2, vec![2, 2])));
    }

    #[test]
    fn missing_stills_move_the_seek_position() {
        let mut recovered = Recovered { stills: stills(5), ..recovered(vec![video(3), video(3)]) };
        let point = resume_point(&plan(60.0, 0.0), &mut recovered).unwrap();
        assert_eq!((point.interval, point.still, point.seek_seconds), (3, 5, 4.0));
    }

    #[test]
    fn a_rendition_with_a_later_start_is_waited_for() {
        let plan = plan(60.0, 60.0);
        let next = |segments: i64, audio: std::ops::Range<i64>| {
            let tracks = [track(0..segments, 100, 100), track(audio, 188, 188 * PACKET_SAMPLES)];
            ResumeRule::new(&plan).next(tracks.iter().map(|track| track.entries.as_slice()))
        };
        // The first audio fragment is so long that it belongs to interval 1.
        assert_eq!([1, 2, 3].map(|segments| next(segments, 1..3)), [None, Some(2), Some(3)]);
    }

    #[test]
    fn a_short_output_resumes_with_a_seek_to_the_start() {
        let mut recovered = recovered(vec![video(1), video(1), track(0..1, 43, 43 * PACKET_SAMPLES)]);
        let point = resume_point(&plan(60.0, 60.0), &mut recovered).unwrap();
        assert_eq!((point.interval, point.seek_seconds), (1, 0.0));
        let audio_points =
            [AudioResumePoint { first_ticks: 43 * PACKET_SAMPLES, fed_ticks: 19 * PACKET_SAMPLES }];
        assert_eq!(point.audio, audio_points);
    }
}

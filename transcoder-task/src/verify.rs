//! Holds what was published against the plan: a stream that is not right is an error, not a stream.

use crate::{error::TaskError, plan::Plan, playlist::Published};

/// Less than this share of a video is no stream of it.
const LEAST_SHARE: f64 = 0.5;
/// Missing seconds and share that are worth a warning; containers round durations.
const NOTABLE: (f64, f64) = (0.3, 0.02);
/// Two rungs' segments begin at the same instant to within the rounding of their clocks.
const SAME_INSTANT_SECONDS: f64 = 0.002;

/// Checks published segments; returns warnings for people.
///
/// # Errors
/// Unusable, if under half of the source came out; wrong output, if rungs do not have the same segments.
pub fn verify(plan: &Plan, rungs: &[&[Published]], audio: &[&[Published]]) -> Result<Vec<String>, TaskError> {
    let mut warnings = Vec::new();
    if let (Some(picture), Some((first, others))) = (&plan.picture, rungs.split_first()) {
        if first.is_empty() {
            return Err(TaskError::Unusable("not one frame of the video can be decoded".into()));
        }
        for (rung, segments) in plan.rungs.iter().skip(1).zip(others) {
            same_segments(first, segments)
                .map_err(|difference| TaskError::Verify(format!("rung {} {difference}", rung.name)))?;
        }
        warnings.extend(coverage("video", first, picture.duration_seconds)?);
    } else if audio.iter().all(|segments| segments.is_empty()) {
        return Err(TaskError::Unusable("nothing of the sound can be decoded".into()));
    } else if let Some(first) = audio.first() {
        warnings.extend(coverage("sound", first, plan.duration_seconds)?);
    }
    for (track, segments) in plan.audio.iter().zip(audio) {
        if segments.is_empty() {
            warnings.push(format!(
                "audio track {} holds no sound that can be decoded and was left out",
                track.name
            ));
        } else if plan.picture.is_some() {
            warnings.extend(missing(
                &format!("audio track {}", track.name),
                segments,
                track.duration_seconds,
            ));
        }
    }
    Ok(warnings)
}

fn same_segments(first: &[Published], other: &[Published]) -> Result<(), String> {
    if first.len() != other.len() {
        return Err(format!("has {} segments where the first has {}", other.len(), first.len()));
    }
    for (number, (a, b)) in first.iter().zip(other).enumerate() {
        if (a.start_seconds - b.start_seconds).abs() > SAME_INSTANT_SECONDS || a.samples != b.samples {
            return Err(format!(
                "segment {number} begins at {:.3} s with {} frames where the first's begins at {:.3} s with {}",
                b.start_seconds, b.samples, a.start_seconds, a.samples
            ));
        }
    }
    Ok(())
}

fn coverage(what: &str, segments: &[Published], expected_seconds: f64) -> Result<Option<String>, TaskError> {
    let seconds = total(segments);
    if seconds < expected_seconds * LEAST_SHARE {
        return Err(TaskError::Unusable(format!(
            "the file is damaged: only {seconds:.1} of {expected_seconds:.1} seconds of {what} can be decoded"
        )));
    }
    Ok(missing(what, segments, expected_seconds))
}

fn missing(what: &str, segments: &[Published], expected_seconds: f64) -> Option<String> {
    let missing = expected_seconds - total(segments);
    (missing > NOTABLE.0 && missing > expected_seconds * NOTABLE.1).then(|| {
        format!("the file is damaged: {missing:.1} of {expected_seconds:.1} seconds of {what} are missing")
    })
}

fn total(segments: &[Published]) -> f64 {
    segments.iter().map(|segment| segment.duration_seconds).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Boundaries, Picture, VideoRendition};

    fn plan(duration_seconds: f64) -> Plan {
        let rung = |name: &str| VideoRendition {
            name: name.into(),
            width: 2,
            height: 2,
            crf: 23.0,
            max_kbps: 100,
            preset: "fast".into(),
            frame_rate: 25.0,
        };
        Plan {
            picture: Some(Picture {
                stream: 0,
                deinterlace: false,
                time_base: "1/25".into(),
                half_frame_seconds: 0.02,
                duration_seconds,
            }),
            rungs: vec![rung("720p"), rung("480p")],
            audio: Vec::new(),
            boundaries: Boundaries { segment_seconds: 4.0, tolerance_seconds: 0.02 },
            duration_seconds,
        }
    }

    fn segments(count: usize) -> Vec<Published> {
        (0..count)
            .map(|number| Published {
                start_seconds: number as f64 * 4.0,
                duration_seconds: 4.0,
                samples: 100,
                bytes: 1000,
            })
            .collect()
    }

    #[test]
    fn a_whole_stream_is_fine() {
        let segments = segments(3);
        assert!(verify(&plan(12.0), &[&segments, &segments], &[]).unwrap().is_empty());
    }

    #[test]
    fn rungs_must_have_the_same_segments() {
        let good = segments(3);
        let mut moved = good.clone();
        moved[1].start_seconds += 0.04;
        let mut lost = good.clone();
        lost[2].samples -= 1;
        for (bad, expected) in [(&good[..2], "2 segments"), (&moved, "4.040 s"), (&lost, "99 frames")] {
            let error = verify(&plan(12.0), &[&good, bad], &[]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(matches!(error, TaskError::Verify(_)));
        }
    }

    #[test]
    fn sound_that_ends_early_is_told_of() {
        let track = crate::plan::AudioRendition {
            name: "eng".into(),
            label: "eng".into(),
            language: None,
            stream: 1,
            sample_rate: 48_000,
            kbps: 128,
            duration_seconds: 12.0,
        };
        let plan = Plan { audio: vec![track], ..plan(12.0) };
        let (video, audio) = (segments(3), segments(1));
        let warnings = verify(&plan, &[&video, &video], &[&audio]).unwrap();
        assert_eq!(warnings, ["the file is damaged: 8.0 of 12.0 seconds of audio track eng are missing"]);
        assert!(verify(&plan, &[&video, &video], &[&[]]).unwrap()[0].contains("left out"));
    }

    #[test]
    fn half_a_video_is_published_with_a_warning_and_less_is_refused() {
        let segments = segments(3);
        let of = |seconds| verify(&plan(seconds), &[&segments, &segments], &[]);
        assert!(of(12.2).unwrap().is_empty());
        assert_eq!(of(12.4).unwrap().len(), 1);
        assert_eq!(of(20.0).unwrap(), ["the file is damaged: 8.0 of 20.0 seconds of video are missing"]);
        assert!(matches!(of(25.0), Err(TaskError::Unusable(_))));
        assert!(matches!(verify(&plan(1.0), &[&[], &[]], &[]), Err(TaskError::Unusable(_))));
    }
}

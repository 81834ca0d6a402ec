//! The way of an audio track from FFmpeg's input to the filters of a rendition.

use crate::{analysis::media::Downmix, plan::model::AudioRendition};

/// The arguments for one output that select the rendition's source, and those that filter it: its alignment
/// with time (`align`), then `filters`. `label` is the name of the output in the filter graph.
#[must_use]
pub(super) fn mapped(
    track: &AudioRendition,
    label: &str,
    align: &str,
    filters: &[String],
) -> [[String; 2]; 2] {
    let chain = |first: Option<&str>| -> String {
        first.into_iter().chain(filters.iter().map(String::as_str)).collect::<Vec<_>>().join(",")
    };
    match track.right {
        None => {
            let align =
                downmix(&track.downmix).map_or(align.to_owned(), |downmix| format!("{downmix},{align}"));
            let stream = format!("0:{}", track.stream);
            [["-map".into(), stream], ["-af".into(), chain(Some(&align))]]
        }
        // Each channel is aligned alone, because `join` pairs samples in their order, whatever their times.
        Some(right) => {
            let channels = format!(
                "[0:{}]{align}[{label}l];[0:{right}]{align}[{label}r];[{label}l][{label}r]",
                track.stream
            );
            let joined = chain(Some("join=inputs=2:channel_layout=stereo:map=0.0-FL|1.0-FR"));
            let graph = format!("{channels}{joined}[{label}]");
            [["-map".into(), format!("[{label}]")], ["-filter_complex".into(), graph]]
        }
    }
}

/// The filter for a layout that FFmpeg does not mix to stereo, or not in full.
fn downmix(downmix: &Downmix) -> Option<String> {
    match downmix {
        Downmix::Standard => None,
        // `<` scales the sum so that it cannot clip.
        Downmix::FrontThree => Some("pan=stereo|FL<c0+0.707*c2|FR<c1+0.707*c2".into()),
        Downmix::Reordered(order) => {
            Some(format!("channelmap=map={}:channel_layout={}", order.join("|"), order.join("+")))
        }
        Downmix::FirstTwo => Some("pan=stereo|c0=c0|c1=c1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mono_tracks_are_joined_after_their_alignment() {
        let filters = ["aformat=channel_layouts=stereo".to_owned()];
        let track = AudioRendition { right: Some(2), ..AudioRendition::of_tests(1, 0.0) };
        assert_eq!(
            mapped(&track, "a0", "aresample=async=1", &filters).concat(),
            [
                "-map",
                "[a0]",
                "-filter_complex",
                "[0:1]aresample=async=1[a0l];[0:2]aresample=async=1[a0r];[a0l][a0r]\
                 join=inputs=2:channel_layout=stereo:map=0.0-FL|1.0-FR,aformat=channel_layouts=stereo[a0]"
            ]
        );
        let track = AudioRendition { downmix: Downmix::FirstTwo, ..AudioRendition::of_tests(1, 0.0) };
        assert_eq!(
            mapped(&track, "a0", "anull", &filters).concat(),
            ["-map", "0:1", "-af", "pan=stereo|c0=c0|c1=c1,anull,aformat=channel_layouts=stereo"]
        );
    }

    /// Loudness of the two channels that FFmpeg makes of a clip: the root of the mean square of 16-bit
    /// samples.
    fn channels(track: &AudioRendition, clip: &str) -> [f64; 2] {
        let folder = tempfile::tempdir().unwrap();
        let picture = "-f lavfi -i testsrc2=size=64x36:rate=25:duration=1";
        let file = crate::fixtures::clip(&folder, "clip.mov", &format!("{picture} {clip}"));
        let filters = ["aformat=channel_layouts=stereo".to_owned()];
        let mut arguments = vec!["-v", "error", "-i", file.to_str().unwrap()];
        let mapped = mapped(track, "a", "aresample=async=1:first_pts=0", &filters).concat();
        arguments.extend(mapped.iter().map(String::as_str));
        arguments.extend(["-f", "s16le", "pipe:1"]);
        let samples = crate::fixtures::run("ffmpeg", &arguments, b"").stdout;
        let samples: Vec<f64> =
            samples.as_chunks().0.iter().map(|sample| f64::from(i16::from_le_bytes(*sample))).collect();
        assert!((samples.len() as f64 / 2.0 - 48_000.0).abs() < 100.0, "{}", samples.len());
        [0, 1].map(|channel| {
            let one = samples.iter().skip(channel).step_by(2);
            (one.map(|sample| sample * sample).sum::<f64>() * 2.0 / samples.len() as f64).sqrt()
        })
    }

    #[test]
    fn no_channel_loses_its_sound() {
        let near = |[left, right]: [f64; 2], expected: [f64; 2]| {
            assert!(
                (left - expected[0]).abs() < 60.0 && (right - expected[1]).abs() < 60.0,
                "{left} {right}"
            );
        };
        // FFmpeg's sine has an eighth of the full amplitude.
        let whole = 32_768.0 / 8.0 / 2_f64.sqrt();
        let tone = "-f lavfi -i sine=440:sample_rate=48000:duration=1";
        let pair = AudioRendition { right: Some(2), ..AudioRendition::of_tests(1, 0.0) };
        let arguments =
            format!("{tone},pan=FL|FL=c0 {tone},pan=FR|FR=0.5*c0 -map 0 -map 1 -map 2 -c:a pcm_s16le");
        near(channels(&pair, &arguments), [whole, whole / 2.0]);
        let first = AudioRendition { downmix: Downmix::FirstTwo, ..AudioRendition::of_tests(1, 0.0) };
        for count in [16, 24] {
            let arguments = format!("{tone},pan={count}c|c0=c0|c1=0.5*c0 -c:a pcm_s16le");
            near(channels(&first, &arguments), [whole, whole / 2.0]);
        }
        let three = AudioRendition { downmix: Downmix::FrontThree, ..AudioRendition::of_tests(1, 0.0) };
        let [left, right] = channels(&three, &format!("{tone},pan=3c|c2=c0 -c:a pcm_s16le"));
        assert!(left > whole / 3.0 && (left - right).abs() < 10.0, "the third channel: {left} {right}");
    }
}

//! Measures loudness (EBU R128) for profiles with a loudness target.
//!
//! Each track is measured as a whole before encoding, and then changed by one constant gain. An adaptive
//! normaliser would change the intended difference between quiet and loud parts.

use ebur128::{EbuR128, Mode};
use futures::future::try_join_all;
use tokio::{io::AsyncReadExt, net::unix::pipe};
use vidstreamx_job::Exit;

use crate::{
    analysis::limits::MOST_SECONDS,
    plan::{
        gain::{Gain, HIGHEST_PEAK_DBTP, Loudness},
        model::AudioRendition,
    },
    process::{FIRST_PIPE_FD, Ffmpeg, FfmpegError},
    progress::{self, ProgressState},
    source::loopback::Input,
};

use super::audio_input::mapped;

/// Sample rate of the measurement in Hz. Loudness does not depend on it.
const SAMPLE_RATE: u32 = 48_000;

/// A failed measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoudnessError {
    #[error(transparent)]
    Ffmpeg(#[from] FfmpegError),
    /// FFmpeg's output cannot be read or measured.
    #[error("the loudness of audio track {track} cannot be measured: {reason}")]
    Output { track: String, reason: String },
}

impl LoudnessError {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Ffmpeg(error) => error.exit(),
            Self::Output { .. } => Exit::Internal,
        }
    }
}

/// The FFmpeg filter for a gain.
#[must_use]
pub(super) fn gain_filter(gain: Gain) -> String {
    let volume = format!("volume={:.2}dB", gain.gain_db);
    if !gain.limited {
        return volume;
    }
    // The limiter looks ahead by `attack` ms. `level=0` keeps it from raising everything to the limit.
    let limit = 10_f64.powf(HIGHEST_PEAK_DBTP / 20.0);
    format!("{volume},alimiter=limit={limit:.4}:level=0:attack=5:release=50")
}

/// Measures the tracks in their published layout, in one pass over the source.
///
/// # Errors
/// FFmpeg fails or stalls, or its output cannot be read.
pub(crate) async fn measure(
    input: &Input,
    tracks: &[AudioRendition],
    progress_state: &ProgressState,
) -> Result<Vec<Loudness>, LoudnessError> {
    let mut arguments: Vec<String> =
        ["-hide_banner", "-nostdin", "-loglevel", "warning", "-nostats", "-stats_period", "1"]
            .map(str::to_owned)
            .into();
    // The duration in a header may be false, so decoding has its own limit.
    arguments.extend(["-t".to_owned(), MOST_SECONDS.to_string()]);
    arguments.extend(input.arguments());
    arguments.extend(["-progress".to_owned(), format!("pipe:{FIRST_PIPE_FD}")]);
    for (fd, track) in (FIRST_PIPE_FD + 1..).zip(tracks) {
        let layout = track.layout.unwrap_or("stereo");
        let layout = format!("aformat=channel_layouts={layout}");
        arguments.extend(mapped(track, &format!("a{fd}"), "anull", &[layout]).concat());
        arguments.extend(["-ar".to_owned(), SAMPLE_RATE.to_string()]);
        arguments.extend(["-c:a", "pcm_f32le", "-f", "f32le"].map(str::to_owned));
        arguments.push(format!("pipe:{fd}"));
    }
    let (mut ffmpeg, mut pipes) = Ffmpeg::spawn(&arguments, tracks.len() + 1)?;
    let samples = pipes.split_off(1);
    let follow = async {
        match pipes.pop() {
            Some(pipe) => Ok(progress::follow(pipe, progress_state).await?),
            None => Ok(()),
        }
    };
    let meters = try_join_all(tracks.iter().zip(samples).map(|(track, pipe)| meter(pipe, track)));
    match tokio::try_join!(meters, follow) {
        Ok((measured, ())) => {
            ffmpeg.wait().await?;
            Ok(measured)
        }
        Err(error) => {
            let _ = ffmpeg.stop().await;
            Err(error)
        }
    }
}

async fn meter(mut pipe: pipe::Receiver, track: &AudioRendition) -> Result<Loudness, LoudnessError> {
    let failed = |reason: String| LoudnessError::Output { track: track.name.clone(), reason };
    // The histogram has a constant size. Without this mode, the meter keeps a list that grows with the track.
    let mode = Mode::I | Mode::TRUE_PEAK | Mode::HISTOGRAM;
    let mut meter =
        EbuR128::new(track.channels, SAMPLE_RATE, mode).map_err(|error| failed(error.to_string()))?;
    let frame_bytes = track.channels as usize * size_of::<f32>();
    let mut bytes = Vec::new();
    let mut samples = Vec::new();
    while (&mut pipe)
        .take(frame_bytes as u64 * 4096)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| failed(error.to_string()))?
        > 0
    {
        let (values, _) = bytes.as_chunks::<{ size_of::<f32>() }>();
        samples.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
        samples.truncate(samples.len() - samples.len() % track.channels as usize);
        meter.add_frames_f32(&samples).map_err(|error| failed(error.to_string()))?;
        bytes.clear();
        samples.clear();
    }
    let integrated_lufs = meter.loudness_global().map_err(|error| failed(error.to_string()))?;
    let mut peak: f64 = 0.0;
    for channel in 0..track.channels {
        peak = peak.max(meter.true_peak(channel).map_err(|error| failed(error.to_string()))?);
    }
    Ok(Loudness { integrated_lufs, true_peak_dbtp: 20.0 * peak.log10() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(integrated_lufs: f64, true_peak_dbtp: f64) -> Option<String> {
        Gain::new(Loudness { integrated_lufs, true_peak_dbtp }, -16.0).map(gain_filter)
    }

    #[test]
    fn one_gain_and_a_limiter_if_peaks_would_clip() {
        assert_eq!(filter(-23.0, -9.0).unwrap(), "volume=7.00dB");
        assert_eq!(filter(-10.0, 0.5).unwrap(), "volume=-6.00dB");
        let limited = "volume=7.00dB,alimiter=limit=0.8913:level=0:attack=5:release=50";
        assert_eq!(filter(-23.0, -3.0).unwrap(), limited);
        assert!(filter(-60.0, -50.0).unwrap().starts_with("volume=30.00dB"));
        assert_eq!(filter(f64::NEG_INFINITY, f64::NEG_INFINITY), None);
    }

    #[tokio::test]
    async fn tones_have_the_loudness_that_the_standard_states() {
        let folder = tempfile::tempdir().unwrap();
        // EBU Tech 3341, case 1: a stereo sine of 1 kHz at -23 dBFS is -23 LUFS; a second track is 10 dB
        // louder.
        let arguments = "-f lavfi -i sine=frequency=1000:duration=6:sample_rate=48000 \
            -filter_complex \
            [0]volume=18.06dB,volume=-23dB,pan=stereo|c0=c0|c1=c0,asplit[a][b];[b]volume=10dB[c] \
            -map [a] -map [c] -c:a pcm_f32le";
        let file = crate::fixtures::clip(&folder, "tones.mkv", arguments);
        let track = |stream| AudioRendition::of_tests(stream, 6.0);
        let measured =
            measure(&Input::File(file), &[track(0), track(1)], &ProgressState::default()).await.unwrap();
        let louder = measured[1].integrated_lufs - measured[0].integrated_lufs;
        assert!((louder - 10.0).abs() < 0.1, "{measured:?}");
        assert!((measured[0].integrated_lufs + 23.0).abs() < 0.1, "{measured:?}");
    }
}

//! What the source is: ffprobe's answer, reduced to what the plan needs.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use vidstreamx_job::{self as job, Exit};

use crate::{ffmpeg, input::Input};

/// Reading a header takes seconds even over a slow network; longer means a file made to hang readers.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// ffprobe prints about 2 KB per track.
const OUTPUT_LIMIT: u64 = 4 << 20;
/// More tracks than any real video has.
const MOST_TRACKS: usize = 100;
/// Longer side, in pixels: 8K and a half. FFmpeg's frames take memory in proportion to the area.
pub const LONGEST_SIDE: u32 = 8192;
/// Longest video accepted.
pub const MOST_SECONDS: f64 = 24.0 * 3600.0;

/// A source's usable tracks.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// FFmpeg's name of the container format.
    pub format: String,
    /// Of the longest track; 0 if the file does not say.
    pub duration_seconds: f64,
    /// The first video track that is no cover art.
    pub video: Option<Video>,
    /// Every audio track that can be decoded.
    pub audio: Vec<Audio>,
    /// What was left out, for people.
    pub warnings: Vec<String>,
}

/// A video track as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    /// FFmpeg's stream index.
    pub index: usize,
    /// FFmpeg's name.
    pub codec: String,
    /// Stored, in pixels.
    pub width: u32,
    /// Stored, in pixels.
    pub height: u32,
    /// Pixel aspect ratio, width to height.
    pub pixel_aspect: f64,
    /// Clockwise degrees for display: 0, 90, 180, 270.
    pub rotation: u32,
    /// Frames per second, on average.
    pub frame_rate: f64,
    /// Seconds per tick of the track's clock, as `1/15360`.
    pub time_base: String,
    /// FFmpeg's name.
    pub pixel_format: String,
    /// Anything but progressive.
    pub interlaced: bool,
    /// 0 if the file does not say.
    pub duration_seconds: f64,
}

impl Video {
    /// Width and height as shown, in square pixels.
    pub fn display_size(&self) -> (f64, f64) {
        let (width, height) = (f64::from(self.width) * self.pixel_aspect, f64::from(self.height));
        if self.rotation % 180 == 90 { (height, width) } else { (width, height) }
    }
}

/// An audio track.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// FFmpeg's stream index.
    pub index: usize,
    /// FFmpeg's name.
    pub codec: String,
    /// How many.
    pub channels: u32,
    /// In Hz.
    pub sample_rate: u32,
    /// ISO 639-2 code, unless undetermined.
    pub language: Option<String>,
    /// The track's own title.
    pub title: Option<String>,
    /// 0 if the file does not say.
    pub duration_seconds: f64,
}

/// Why there is nothing to transcode.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not a usable video; the text is for its uploader.
    #[error("{0}")]
    Unusable(String),
    /// ffprobe could not be run.
    #[error("cannot run ffprobe: {0} (is FFmpeg installed?)")]
    Run(std::io::Error),
    /// The object came too slowly.
    #[error("the file's header could not be read from S3 within a minute")]
    Slow,
    /// ffprobe was killed, most likely for want of memory.
    #[error("ffprobe was killed, most likely for want of memory")]
    Killed,
    /// ffprobe crashed.
    #[error("ffprobe crashed ({0})")]
    Crashed(ExitStatus),
}

impl ProbeError {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unusable(_) => Exit::Unusable,
            Self::Run(_) => Exit::Misconfigured,
            Self::Slow => Exit::Transient,
            Self::Killed => Exit::OutOfMemory,
            Self::Crashed(_) => Exit::Internal,
        }
    }
}

/// Reads the source's header.
pub async fn probe(input: &Input) -> Result<Media, ProbeError> {
    let mut command = ffmpeg::command("ffprobe");
    command
        .args(["-loglevel", "error", "-of", "json", "-show_format", "-show_streams"])
        .args(input.arguments())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ProbeError::Run)?;
    let (mut json, mut complaints) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let json = async {
            match stdout {
                Some(stdout) => stdout.take(OUTPUT_LIMIT).read_to_end(&mut json).await,
                None => Ok(0),
            }
        };
        let complaints = async {
            match stderr {
                Some(stderr) => stderr.take(OUTPUT_LIMIT).read_to_end(&mut complaints).await,
                None => Ok(0),
            }
        };
        tokio::try_join!(json, complaints)?;
        child.wait().await
    };
    let status = match tokio::time::timeout(TIME_LIMIT, read).await {
        Ok(status) => status.map_err(ProbeError::Run)?,
        Err(_) if matches!(input, Input::Served(_)) => return Err(ProbeError::Slow),
        Err(_) => return Err(unusable("the file's header could not be read within a minute")),
    };
    if !status.success() {
        let complaints = String::from_utf8_lossy(&complaints);
        tracing::debug!("ffprobe: {}", complaints.trim());
        return Err(failure(status, &complaints));
    }
    let answer = serde_json::from_slice(&json)
        .map_err(|_| unusable("the file's header holds more than any video's does"))?;
    media(answer)
}

fn unusable(reason: impl Into<String>) -> ProbeError {
    ProbeError::Unusable(reason.into())
}

/// Only an ffprobe that works can say that a file is no video.
fn failure(status: ExitStatus, complaints: &str) -> ProbeError {
    const BROKEN: [&str; 3] =
        ["error while loading shared libraries", "Unrecognized option", "symbol lookup error"];
    match status.signal() {
        Some(9) => return ProbeError::Killed,
        Some(_) => return ProbeError::Crashed(status),
        None => {}
    }
    if matches!(status.code(), Some(126 | 127)) || BROKEN.iter().any(|words| complaints.contains(words)) {
        return ProbeError::Run(std::io::Error::other(complaints.trim().to_owned()));
    }
    unusable(complaint(complaints))
}

/// ffprobe's complaint in words for the person who uploaded the file.
fn complaint(stderr: &str) -> &'static str {
    if stderr.contains("moov atom not found") {
        "the file is not a video, or its end is missing (an MP4 without an index)"
    } else if stderr.contains("not on whitelist") {
        "the file is not an MP4, QuickTime, Matroska or WebM video, whatever its name says"
    } else {
        "the file is not a video, or it is damaged beyond reading"
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
    format: Format,
}

#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    format_name: String,
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: usize,
    codec_type: Option<String>,
    codec_name: Option<String>,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    sample_aspect_ratio: Option<String>,
    pix_fmt: Option<String>,
    field_order: Option<String>,
    avg_frame_rate: Option<String>,
    time_base: Option<String>,
    duration: Option<String>,
    #[serde(default)]
    channels: u32,
    sample_rate: Option<String>,
    #[serde(default)]
    disposition: Disposition,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize, Default)]
struct Disposition {
    #[serde(default)]
    attached_pic: u8,
}

#[derive(Deserialize, Default)]
struct Tags {
    language: Option<String>,
    title: Option<String>,
}

#[derive(Deserialize)]
struct SideData {
    /// Counter-clockwise degrees.
    rotation: Option<f64>,
}

fn media(answer: Answer) -> Result<Media, ProbeError> {
    if answer.streams.len() > MOST_TRACKS {
        return Err(unusable(format!(
            "the file has {} tracks, more than the {MOST_TRACKS} that are accepted",
            answer.streams.len()
        )));
    }
    let duration_seconds = seconds(answer.format.duration.as_deref());
    if duration_seconds > MOST_SECONDS {
        return Err(unusable(format!(
            "the file claims to last {:.0} hours, more than the {:.0} that are accepted",
            duration_seconds / 3600.0,
            MOST_SECONDS / 3600.0
        )));
    }
    let of_type = |kind: &'static str| {
        answer.streams.iter().filter(move |stream| stream.codec_type.as_deref() == Some(kind))
    };
    let video = of_type("video")
        .find(|stream| stream.disposition.attached_pic == 0 && stream.width > 0 && stream.height > 0)
        .map(video)
        .transpose()?;
    // Phones add tracks of codecs of their own (spatial sound) beside an ordinary one.
    let (playable, unknown): (Vec<_>, Vec<_>) =
        of_type("audio").partition(|stream| stream.channels > 0 && known(stream).is_some());
    let audio = playable.into_iter().map(audio).collect::<Vec<_>>();
    let warnings = unknown
        .into_iter()
        .map(|stream| {
            format!("audio track {} is in a codec that is not known here and was left out", stream.index)
        })
        .collect();
    if video.is_none() && audio.is_empty() {
        return Err(unusable("the file holds neither a picture nor sound that can be played"));
    }
    let video = video.map(|video| Video {
        duration_seconds: if video.duration_seconds > 0.0 {
            video.duration_seconds
        } else {
            duration_seconds
        },
        ..video
    });
    Ok(Media { format: answer.format.format_name, duration_seconds, video, audio, warnings })
}

/// The codec's name, if FFmpeg knows the codec.
fn known(stream: &Stream) -> Option<&str> {
    stream.codec_name.as_deref().filter(|name| !matches!(*name, "unknown" | "none"))
}

fn video(stream: &Stream) -> Result<Video, ProbeError> {
    let codec = match stream.codec_name.as_deref() {
        None | Some("unknown" | "none") => {
            return Err(unusable("the video is in a codec that is not known here"));
        }
        Some(codec) => codec.to_owned(),
    };
    if stream.width.max(stream.height) > LONGEST_SIDE {
        return Err(unusable(format!(
            "the picture is {} × {} pixels, more than the {LONGEST_SIDE} a side that are accepted",
            stream.width, stream.height
        )));
    }
    let rotation = stream.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0.0);
    let quarter_turns = (-rotation / 90.0).round().rem_euclid(4.0);
    Ok(Video {
        index: stream.index,
        codec,
        width: stream.width,
        height: stream.height,
        pixel_aspect: ratio(stream.sample_aspect_ratio.as_deref(), ':').unwrap_or(1.0),
        rotation: [0, 90, 180, 270].into_iter().nth(quarter_turns as usize).unwrap_or(0),
        frame_rate: ratio(stream.avg_frame_rate.as_deref(), '/').unwrap_or(0.0),
        time_base: stream
            .time_base
            .clone()
            .filter(|text| ratio(Some(text), '/').is_some())
            .unwrap_or_else(|| "1/90000".into()),
        pixel_format: stream.pix_fmt.clone().unwrap_or_default(),
        interlaced: !matches!(stream.field_order.as_deref(), None | Some("progressive" | "unknown")),
        duration_seconds: seconds(stream.duration.as_deref()),
    })
}

fn audio(stream: &Stream) -> Audio {
    Audio {
        index: stream.index,
        codec: stream.codec_name.clone().unwrap_or_default(),
        channels: stream.channels,
        sample_rate: stream.sample_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0),
        language: stream
            .tags
            .language
            .clone()
            .filter(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase()))
            .filter(|code| code != "und"),
        title: stream.tags.title.clone(),
        duration_seconds: seconds(stream.duration.as_deref()),
    }
}

fn seconds(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse().ok())
        .filter(|seconds: &f64| seconds.is_finite())
        .unwrap_or(0.0)
        .max(0.0)
}

/// `16:9` or `30000/1001` as a positive number.
fn ratio(text: Option<&str>, separator: char) -> Option<f64> {
    let (numerator, denominator) = text?.split_once(separator)?;
    let ratio = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

impl From<&Media> for job::Probe {
    fn from(media: &Media) -> Self {
        Self {
            format: media.format.clone(),
            duration_seconds: media.duration_seconds,
            video: media.video.as_ref().map(|video| {
                let (width, height) = video.display_size();
                job::VideoTrack {
                    codec: video.codec.clone(),
                    width: width.round() as u32,
                    height: height.round() as u32,
                    frame_rate: video.frame_rate,
                    rotation: video.rotation,
                    pixel_format: video.pixel_format.clone(),
                }
            }),
            audio: media
                .audio
                .iter()
                .map(|audio| job::AudioTrack {
                    codec: audio.codec.clone(),
                    channels: audio.channels,
                    sample_rate: audio.sample_rate,
                    language: audio.language.clone(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: serde_json::Value) -> Result<Media, ProbeError> {
        media(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_phone_video_with_cover_art_and_data_tracks() {
        let media = of(serde_json::json!({
            "format": {"format_name": "mov,mp4", "duration": "4.001667"},
            "streams": [
                {"index": 0, "codec_type": "video", "codec_name": "mjpeg", "width": 600, "height": 600,
                 "disposition": {"attached_pic": 1}},
                {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 1,
                 "sample_rate": "44100", "tags": {"language": "und"}},
                {"index": 2, "codec_type": "video", "codec_name": "h264", "width": 568, "height": 320,
                 "sample_aspect_ratio": "0:1", "avg_frame_rate": "36000/1201", "time_base": "1/600",
                 "side_data_list": [{"side_data_type": "Display Matrix", "rotation": -90}]},
                {"index": 3, "codec_type": "data", "codec_tag_string": "mebx"}
            ]
        }))
        .unwrap();
        let video = media.video.unwrap();
        assert_eq!((video.index, video.rotation, video.pixel_aspect), (2, 90, 1.0));
        assert_eq!(video.display_size(), (320.0, 568.0));
        assert_eq!((media.audio[0].index, &media.audio[0].language), (1, &None));
    }

    #[test]
    fn a_track_of_unknown_sound_is_left_out_with_a_warning() {
        let media = of(serde_json::json!({
            "format": {"duration": "4"},
            "streams": [
                {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64},
                {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 2},
                {"index": 2, "codec_type": "audio", "codec_tag_string": "apac", "channels": 4}
            ]
        }))
        .unwrap();
        assert_eq!(media.audio.iter().map(|audio| audio.index).collect::<Vec<_>>(), [1]);
        assert!(media.warnings[0].contains("track 2"));
        assert_eq!(media.video.unwrap().duration_seconds, 4.0);
    }

    #[test]
    fn a_broken_ffprobe_says_nothing_about_the_file() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let of = |status, complaints| failure(status, complaints).exit();
        assert_eq!(
            of(exited(127), "ffprobe: error while loading shared libraries: libx"),
            Exit::Misconfigured
        );
        assert_eq!(of(exited(1), "Unrecognized option 'format_whitelist'"), Exit::Misconfigured);
        assert_eq!(of(ExitStatus::from_raw(9), ""), Exit::OutOfMemory);
        assert_eq!(of(ExitStatus::from_raw(11), ""), Exit::Internal);
        assert_eq!(of(exited(1), "moov atom not found"), Exit::Unusable);
    }

    #[test]
    fn what_no_video_is_like_is_refused_in_plain_words() {
        let stream = |width: u32| serde_json::json!({"index": 0, "codec_type": "video", "codec_name": "h264", "width": width, "height": 16});
        for (streams, duration, expected) in [
            (vec![], "1", "neither a picture nor sound"),
            (vec![stream(16_384)], "1", "16384 × 16 pixels"),
            (vec![stream(16); 101], "1", "101 tracks"),
            (vec![stream(16)], "315360000", "87600 hours"),
        ] {
            let error =
                of(serde_json::json!({"format": {"duration": duration}, "streams": streams})).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

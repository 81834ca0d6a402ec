//! What the source is: ffprobe's answer, reduced to what the plan needs.

use std::{
    fmt,
    ops::RangeInclusive,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use vidstreamx_job::{self as job, Exit};

use crate::{process, source::loopback::Input};

/// Reading a header takes seconds even over a slow network; longer means a file made to hang readers.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// ffprobe prints about 2 KB per track.
const OUTPUT_LIMIT: u64 = 4 << 20;
/// More tracks than any real video has.
const MOST_TRACKS: usize = 100;
/// For the uploader.
pub const ENCRYPTED: &str = "the file is encrypted (copy protection); upload an unprotected version";
/// A film has some 30, an audio book some hundreds.
const MOST_CHAPTERS: usize = 1000;
/// Of a title, in characters.
const LONGEST_TITLE: usize = 200;
/// FFmpeg knows how to make stereo of no more.
const MOST_CHANNELS: u32 = 8;
/// In Hz: from below the telephone's up to that of the fastest converters.
const SAMPLE_RATES: RangeInclusive<u32> = 1_000..=768_000;
/// Longer side, in pixels: 8K and a half. FFmpeg's frames take memory in proportion to the area.
pub const LONGEST_SIDE: u32 = 8192;
/// Pixels of the largest picture accepted, 8K. One frame of H.264 of 8192 × 8192 pixels took FFmpeg 1.3 GB.
pub const MOST_PIXELS: u64 = 8192 * 4320;
/// Packets asked for, to see whether they are encrypted: some of each track.
const PACKETS: &str = "%+#4";
/// Longest video accepted.
pub const MOST_SECONDS: f64 = 24.0 * 3600.0;

/// A source's usable tracks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Media {
    /// FFmpeg's name of the container format.
    pub format: String,
    /// Of the longest track; 0 if the file does not say.
    pub duration_seconds: f64,
    /// The instant of the file's clock at which its first track begins. FFmpeg's filters and encoders, and all
    /// times here, count from there.
    pub start_seconds: f64,
    /// The first video track that is no cover art.
    pub video: Option<Video>,
    /// Every audio track that can be decoded.
    pub audio: Vec<Audio>,
    /// Every track of text to be shown with the picture.
    pub subtitles: Vec<Subtitle>,
    /// In order.
    pub chapters: Vec<Chapter>,
    /// What was left out, for people.
    pub warnings: Vec<String>,
}

/// A video track as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Video {
    /// FFmpeg's stream index.
    pub index: usize,
    /// The container's track number, if it has one.
    pub id: Option<u32>,
    /// FFmpeg's name.
    pub codec: String,
    /// The container's name, four characters as a rule: `avc1`, `hvc1`, `dvh1`.
    pub codec_tag: String,
    /// FFmpeg's name: `High`, `Main 10`.
    pub profile: Option<String>,
    /// In the codec's own unit: 41 is H.264's level 4.1, 123 is HEVC's 4.1.
    pub level: Option<u32>,
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
    /// The lowest rate in which every frame has a place of its own: as [`Self::frame_rate`] if that is constant.
    pub base_frame_rate: f64,
    /// How many, if the container says.
    pub frames: Option<u64>,
    /// Seconds per tick of the track's clock, as `1/15360`.
    pub time_base: String,
    /// FFmpeg's name.
    pub pixel_format: String,
    /// Of one sample of one plane.
    pub bits: u32,
    /// What the numbers of a pixel mean.
    pub colour: Colour,
    /// Frames are stored in another order than they are shown in.
    pub reordered: bool,
    /// Anything but progressive.
    pub interlaced: bool,
    /// In bits per second; 0 if the file does not say.
    pub bit_rate: u64,
    /// Of the first frame, after [`Media::start_seconds`].
    pub start_seconds: f64,
    /// 0 if the file does not say.
    pub duration_seconds: f64,
}

impl Video {
    /// Width and height as shown, in square pixels: what FFmpeg's own turning gives, scaled to square pixels.
    pub fn display_size(&self) -> (f64, f64) {
        let (width, height) = (f64::from(self.width) * self.pixel_aspect, f64::from(self.height));
        if self.rotation % 180 == 90 { (height, width) } else { (width, height) }
    }
}

/// How a picture's numbers are to be seen. FFmpeg's names; `None` where neither bitstream nor container says. Where
/// they disagree FFmpeg, when it decodes, and ffprobe go by the bitstream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Colour {
    /// 0 to 255 instead of 16 to 235.
    pub full_range: Option<bool>,
    /// Matrix: `bt709`, `bt2020nc`.
    pub space: Option<String>,
    /// `bt709`, `smpte2084` (PQ), `arib-std-b67` (HLG).
    pub transfer: Option<String>,
    /// `bt709`, `bt2020`.
    pub primaries: Option<String>,
    /// The brightest pixel in cd/m², if the container says.
    pub peak_nits: Option<f64>,
    /// Dolby Vision's profile and what its base layer is without Dolby's data (1: HDR10, 2: SDR, 4: HLG, 0: nothing
    /// that can be shown).
    pub dolby_vision: Option<(u32, u32)>,
}

/// What has to happen to a picture's brightness before an ordinary screen can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynamicRange {
    /// Nothing.
    Sdr,
    /// PQ, with or without metadata.
    Hdr10,
    /// Hybrid log-gamma.
    Hlg,
    /// Profile and base layer compatibility, as in [`Colour::dolby_vision`].
    DolbyVision(u32, u32),
}

impl Colour {
    /// Told by Dolby's record if there is one, else by the transfer function alone.
    pub fn dynamic_range(&self) -> DynamicRange {
        match (self.dolby_vision, self.transfer.as_deref()) {
            (Some((profile, compatibility)), _) => DynamicRange::DolbyVision(profile, compatibility),
            (None, Some("smpte2084")) => DynamicRange::Hdr10,
            (None, Some("arib-std-b67")) => DynamicRange::Hlg,
            (None, _) => DynamicRange::Sdr,
        }
    }
}

impl fmt::Display for DynamicRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sdr => formatter.write_str("sdr"),
            Self::Hdr10 => formatter.write_str("hdr10"),
            Self::Hlg => formatter.write_str("hlg"),
            Self::DolbyVision(profile, 0) => write!(formatter, "dolby-vision-{profile}"),
            Self::DolbyVision(profile, compatibility) => {
                write!(formatter, "dolby-vision-{profile}.{compatibility}")
            }
        }
    }
}

/// An audio track.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audio {
    /// FFmpeg's stream index.
    pub index: usize,
    /// The container's track number, if it has one.
    pub id: Option<u32>,
    /// FFmpeg's name.
    pub codec: String,
    /// FFmpeg's name: `LC`, `HE-AAC`.
    pub profile: Option<String>,
    /// How many.
    pub channels: u32,
    /// FFmpeg's name: `stereo`, `5.1(side)`.
    pub channel_layout: Option<String>,
    /// In Hz.
    pub sample_rate: u32,
    /// In bits per second; 0 if the file does not say.
    pub bit_rate: u64,
    /// ISO 639-2 code, unless undetermined.
    pub language: Option<String>,
    /// The track's own title.
    pub title: Option<String>,
    /// What the track is for.
    pub role: Role,
    /// Of the first sample, after [`Media::start_seconds`].
    pub start_seconds: f64,
    /// 0 if the file does not say.
    pub duration_seconds: f64,
}

/// A track of text to be shown with the picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subtitle {
    /// FFmpeg's stream index.
    pub index: usize,
    /// The container's track number, if it has one.
    pub id: Option<u32>,
    /// FFmpeg's name.
    pub codec: String,
    /// ISO 639-2 code, unless undetermined.
    pub language: Option<String>,
    /// The track's own title.
    pub title: Option<String>,
    /// What the track is for.
    pub role: Role,
}

/// What a track is for, as far as the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Chosen where the viewer chooses nothing.
    #[serde(deserialize_with = "flag")]
    pub default: bool,
    /// In the language the film was made in.
    #[serde(deserialize_with = "flag")]
    pub original: bool,
    /// A commentary.
    #[serde(deserialize_with = "flag")]
    pub comment: bool,
    /// To be shown even without being asked for: what is said in a foreign language.
    #[serde(deserialize_with = "flag")]
    pub forced: bool,
    /// For people who hear badly.
    #[serde(deserialize_with = "flag")]
    pub hearing_impaired: bool,
    /// For people who see badly.
    #[serde(deserialize_with = "flag")]
    pub visual_impaired: bool,
}

/// A part of the video with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Chapter {
    /// After [`Media::start_seconds`].
    pub start_seconds: f64,
    /// After [`Media::start_seconds`].
    pub end_seconds: f64,
    /// Its name, if it has one.
    pub title: Option<String>,
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
    /// ffprobe's answer is not what it should be.
    #[error("ffprobe's answer cannot be read: {0}")]
    Answer(String),
}

impl ProbeError {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unusable(_) => Exit::Unusable,
            Self::Run(_) => Exit::Misconfigured,
            Self::Slow => Exit::Transient,
            Self::Killed => Exit::OutOfMemory,
            Self::Crashed(_) | Self::Answer(_) => Exit::Internal,
        }
    }
}

/// Reads the source's header.
pub async fn probe(input: &Input) -> Result<Media, ProbeError> {
    let mut command = process::command("ffprobe");
    command
        .args(["-loglevel", "error", "-of", "json", "-show_format", "-show_streams", "-show_chapters"])
        .args(["-show_packets", "-read_intervals", PACKETS])
        // ffprobe decodes the first frames: none that is larger than what is accepted.
        .args(["-max_pixels", &MOST_PIXELS.to_string()])
        .args(input.arguments())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ProbeError::Run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let (json, complaints) = tokio::try_join!(beginning(stdout), beginning(stderr))?;
        Ok::<_, std::io::Error>((json, complaints, child.wait().await?))
    };
    let (json, complaints, status) = match tokio::time::timeout(TIME_LIMIT, read).await {
        Ok(answer) => answer.map_err(ProbeError::Run)?,
        Err(_) if matches!(input, Input::Served(_)) => return Err(ProbeError::Slow),
        Err(_) => return Err(unusable("the file's list of contents could not be read within a minute")),
    };
    let complaints = String::from_utf8_lossy(&complaints);
    for line in complaints.lines() {
        tracing::debug!("ffprobe: {line}");
    }
    let too_large = too_large(&complaints);
    if !status.success() {
        return Err(match (failure(status, &complaints), too_large) {
            (ProbeError::Unusable(_), Some((width, height))) => oversize(width, height),
            (error, _) => error,
        });
    }
    if json.len() as u64 >= OUTPUT_LIMIT {
        return Err(unusable("the file claims to hold more tracks or chapters than any video does"));
    }
    let media = media(parse(&json).map_err(|error| ProbeError::Answer(error.to_string()))?);
    let seen = |media: &Media| media.video.as_ref().is_some_and(|video| !video.pixel_format.is_empty());
    match too_large {
        Some((width, height)) if !media.as_ref().is_ok_and(seen) => Err(oversize(width, height)),
        _ => media,
    }
}

/// The first [`OUTPUT_LIMIT`] bytes. The rest is read too: a closed pipe would end ffprobe by a signal.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(OUTPUT_LIMIT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// By way of a value, because tags are the uploader's: a name may come twice, and not in UTF-8.
fn parse(json: &[u8]) -> serde_json::Result<Answer> {
    let value: serde_json::Value = serde_json::from_str(&String::from_utf8_lossy(json))?;
    serde_json::from_value(value)
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

fn oversize(width: u32, height: u32) -> ProbeError {
    unusable(format!(
        "the picture is {width} × {height} pixels, more than the {LONGEST_SIDE} a side and {} million in all that \
         are accepted",
        MOST_PIXELS / 1_000_000
    ))
}

/// The size that a decoder refused, of which ffprobe then knows nothing: `Picture size 8192x8192 exceeds specified max
/// pixel count…`, or `…is invalid` for what no FFmpeg decodes.
fn too_large(complaints: &str) -> Option<(u32, u32)> {
    complaints.split("Picture size ").skip(1).find_map(|rest| {
        let (width, height) = rest.split(' ').next()?.split_once('x')?;
        let (width, height): (u32, u32) = (width.parse().ok()?, height.parse().ok()?);
        (u64::from(width) * u64::from(height) > MOST_PIXELS).then_some((width, height))
    })
}

/// ffprobe's complaint in words for the person who uploaded the file.
fn complaint(stderr: &str) -> &'static str {
    if stderr.contains("moov atom not found") {
        "the file is not a video, or its end is missing (was the upload broken off?)"
    } else if stderr.contains("not on whitelist") {
        "the file is not an MP4, QuickTime, Matroska or WebM video, whatever its name says"
    } else if stderr.contains("Cannot allocate memory") || stderr.contains("max_streams") {
        "the file claims to hold more than any video does"
    } else {
        "the file is not a video, or it is damaged beyond reading"
    }
}

/// What ffprobe prints. Numbers come as texts where they may be fractions.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    chapters: Vec<ChapterMark>,
    /// The first few.
    #[serde(default)]
    packets: Vec<Packet>,
    format: Format,
}

#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    format_name: String,
    start_time: Option<String>,
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: usize,
    /// `0x1`.
    id: Option<String>,
    codec_type: Option<String>,
    codec_name: Option<String>,
    codec_tag_string: Option<String>,
    profile: Option<String>,
    level: Option<i64>,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    sample_aspect_ratio: Option<String>,
    pix_fmt: Option<String>,
    color_range: Option<String>,
    color_space: Option<String>,
    color_transfer: Option<String>,
    color_primaries: Option<String>,
    field_order: Option<String>,
    #[serde(default)]
    has_b_frames: i64,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    nb_frames: Option<String>,
    time_base: Option<String>,
    start_time: Option<String>,
    duration: Option<String>,
    bit_rate: Option<String>,
    #[serde(default)]
    channels: u32,
    channel_layout: Option<String>,
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
    #[serde(default, deserialize_with = "flag")]
    attached_pic: bool,
    #[serde(default, deserialize_with = "flag")]
    timed_thumbnails: bool,
    #[serde(flatten)]
    role: Role,
}

/// 0 or 1.
fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    u8::deserialize(deserializer).map(|number| number != 0)
}

#[derive(Deserialize, Default)]
struct Tags {
    language: Option<String>,
    title: Option<String>,
    handler_name: Option<String>,
    /// Where Matroska has it: `00:01:02.345000000`.
    #[serde(rename = "DURATION")]
    duration: Option<String>,
}

#[derive(Deserialize)]
struct SideData {
    #[serde(default)]
    side_data_type: String,
    /// Three lines of an offset and three numbers.
    displaymatrix: Option<String>,
    dv_profile: Option<u32>,
    dv_bl_signal_compatibility_id: Option<u32>,
    /// In cd/m².
    max_content: Option<u32>,
    /// In cd/m², as a fraction.
    max_luminance: Option<String>,
}

#[derive(Deserialize)]
struct Packet {
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize)]
struct ChapterMark {
    start_time: Option<String>,
    end_time: Option<String>,
    #[serde(default)]
    tags: Tags,
}

fn media(answer: Answer) -> Result<Media, ProbeError> {
    if answer.streams.len() > MOST_TRACKS {
        return Err(unusable(format!(
            "the file has {} tracks, more than the {MOST_TRACKS} that are accepted",
            answer.streams.len()
        )));
    }
    let of_type = |kind: &'static str| {
        answer.streams.iter().filter(move |stream| stream.codec_type.as_deref() == Some(kind))
    };
    let pictures: Vec<_> = of_type("video")
        .filter(|stream| !stream.disposition.attached_pic && !stream.disposition.timed_thumbnails)
        .collect();
    if encrypted(&answer) {
        return Err(unusable(ENCRYPTED));
    }
    let start_seconds = number(answer.format.start_time.as_deref());
    let duration_seconds = seconds(answer.format.duration.as_deref());
    let ends = answer
        .streams
        .iter()
        .map(|stream| (number(stream.start_time.as_deref()) - start_seconds).max(0.0) + duration(stream));
    let claimed = ends.fold(duration_seconds, f64::max);
    if claimed > MOST_SECONDS {
        return Err(unusable(format!(
            "the file claims to last {:.0} hours, more than the {:.0} that are accepted",
            claimed / 3600.0,
            MOST_SECONDS / 3600.0
        )));
    }
    let mut warnings = Vec::new();

    let readable = |stream: &&&Stream| codec(stream).is_some() && stream.width > 0 && stream.height > 0;
    let video = match (pictures.iter().find(readable), pictures.first()) {
        (Some(stream), _) => Some(video(stream, start_seconds)?),
        (None, Some(stream)) if codec(stream).is_none() => {
            return Err(unusable(format!("the video is {}", unreadable(stream))));
        }
        (None, Some(_)) => {
            return Err(unusable("the file does not say how large its picture is: it is damaged"));
        }
        (None, None) => None,
    };
    // Phones add tracks in formats of their own (spatial sound) beside an ordinary one.
    let mut audio = Vec::new();
    for stream in of_type("audio") {
        match check_audio(stream) {
            Ok(()) => audio.push(self::audio(stream, start_seconds)),
            Err(reason) => {
                warnings.push(format!("audio track {} is {reason} and was left out", stream.index))
            }
        }
    }
    if video.is_none() && audio.is_empty() {
        return Err(unusable(match of_type("audio").next().map(check_audio) {
            Some(Err(reason)) => format!("the sound is {reason}"),
            _ => "the file holds neither a picture nor sound that can be played".into(),
        }));
    }
    let mut subtitles = Vec::new();
    for stream in of_type("subtitle") {
        match text(stream) {
            Ok(()) => subtitles.push(Subtitle {
                index: stream.index,
                id: id(stream),
                codec: codec(stream).unwrap_or_default().to_owned(),
                language: language(stream),
                title: title(&stream.tags),
                role: stream.disposition.role,
            }),
            Err(reason) => {
                warnings.push(format!("subtitle track {} is {reason} and was left out", stream.index));
            }
        }
    }
    if answer.chapters.len() > MOST_CHAPTERS {
        warnings.push(format!(
            "the file has {} chapters: those after the {MOST_CHAPTERS}th were left out",
            answer.chapters.len()
        ));
    }
    let chapters =
        answer.chapters.iter().filter_map(|mark| chapter(mark, start_seconds)).take(MOST_CHAPTERS).collect();
    Ok(Media {
        format: answer.format.format_name,
        duration_seconds,
        start_seconds,
        video,
        audio,
        subtitles,
        chapters,
        warnings,
    })
}

/// Whether the first packets come with what a player must know to decrypt them. (Keys for the whole file are in
/// decrypted files, too.)
fn encrypted(answer: &Answer) -> bool {
    let mut data = answer.packets.iter().flat_map(|packet| &packet.side_data_list);
    data.any(|data| data.side_data_type == "Encryption info")
}

/// The codec's name, if it can be read here.
fn codec(stream: &Stream) -> Option<&str> {
    // FFmpeg 5 cannot decode VVC, and FFmpeg 7 takes the first packet's time for the video's start and loses what
    // is shown before it.
    stream.codec_name.as_deref().filter(|name| !matches!(*name, "unknown" | "none" | "vvc"))
}

/// Said of a track that cannot be read, behind "is".
fn unreadable(stream: &Stream) -> String {
    let name = stream.codec_tag_string.as_deref().or(stream.codec_name.as_deref()).unwrap_or_default().trim();
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -_.".contains(&byte)) {
        format!("in a format ({name}) that this service cannot read")
    } else {
        "in a format that this service cannot read".into()
    }
}

/// Whether sound can be decoded and encoded again, or why not.
fn check_audio(stream: &Stream) -> Result<(), String> {
    if codec(stream).is_none() || stream.channels == 0 {
        Err(unreadable(stream))
    } else if stream.channels > MOST_CHANNELS {
        Err(format!(
            "said to have {} channels, more than the {MOST_CHANNELS} that are accepted,",
            stream.channels
        ))
    } else if !SAMPLE_RATES.contains(&sample_rate(stream)) {
        Err(format!("said to have {} samples per second, which no sound has,", sample_rate(stream)))
    } else {
        Ok(())
    }
}

/// Whether subtitles are text, or why not. FFmpeg itself takes out the text track that holds QuickTime's chapters.
fn text(stream: &Stream) -> Result<(), String> {
    match codec(stream) {
        Some("mov_text" | "subrip" | "ass" | "ssa" | "webvtt" | "text") => Ok(()),
        Some("dvd_subtitle" | "hdmv_pgs_subtitle" | "dvb_subtitle" | "xsub") => {
            Err("made of pictures instead of text".into())
        }
        _ => Err(unreadable(stream)),
    }
}

/// Of a track, in seconds; 0 if the file does not say. (The file's own is that of the longest track.)
fn duration(stream: &Stream) -> f64 {
    let tagged = || {
        let mut parts = stream.tags.duration.as_deref()?.splitn(3, ':').map(|part| part.parse::<f64>().ok());
        let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
        Some(hours * 3600.0 + minutes * 60.0 + seconds)
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
    };
    match seconds(stream.duration.as_deref()) {
        own if own > 0.0 => own,
        _ => tagged().unwrap_or(0.0),
    }
}

fn video(stream: &Stream, start_seconds: f64) -> Result<Video, ProbeError> {
    let pixels = u64::from(stream.width) * u64::from(stream.height);
    if stream.width.max(stream.height) > LONGEST_SIDE || pixels > MOST_PIXELS {
        return Err(oversize(stream.width, stream.height));
    }
    let pixel_format = stream.pix_fmt.clone().unwrap_or_default();
    Ok(Video {
        index: stream.index,
        id: id(stream),
        codec: codec(stream).unwrap_or_default().to_owned(),
        codec_tag: stream.codec_tag_string.clone().unwrap_or_default(),
        profile: non_empty(stream.profile.as_deref()),
        level: stream.level.and_then(|level| u32::try_from(level).ok()),
        width: stream.width,
        height: stream.height,
        pixel_aspect: ratio(stream.sample_aspect_ratio.as_deref(), ':').unwrap_or(1.0),
        rotation: stream
            .side_data_list
            .iter()
            .find_map(|data| data.displaymatrix.as_deref())
            .and_then(rotation)
            .unwrap_or(0),
        frame_rate: ratio(stream.avg_frame_rate.as_deref(), '/').unwrap_or(0.0),
        base_frame_rate: ratio(stream.r_frame_rate.as_deref(), '/').unwrap_or(0.0),
        frames: stream.nb_frames.as_deref().and_then(|count| count.parse().ok()),
        time_base: stream
            .time_base
            .clone()
            .filter(|text| ratio(Some(text), '/').is_some())
            .unwrap_or_else(|| "1/90000".into()),
        bits: bits(&pixel_format),
        pixel_format,
        colour: colour(stream),
        reordered: stream.has_b_frames > 0,
        interlaced: !matches!(stream.field_order.as_deref(), None | Some("progressive" | "unknown")),
        bit_rate: bit_rate(stream),
        start_seconds: number(stream.start_time.as_deref()) - start_seconds,
        duration_seconds: duration(stream),
    })
}

fn colour(stream: &Stream) -> Colour {
    let content = stream.side_data_list.iter().find_map(|data| data.max_content).map(f64::from);
    let mastering = stream.side_data_list.iter().find_map(|data| ratio(data.max_luminance.as_deref(), '/'));
    Colour {
        full_range: non_empty(stream.color_range.as_deref()).map(|range| range == "pc"),
        space: non_empty(stream.color_space.as_deref()),
        transfer: non_empty(stream.color_transfer.as_deref()),
        primaries: non_empty(stream.color_primaries.as_deref()),
        peak_nits: content.filter(|nits| *nits > 0.0).or(mastering),
        dolby_vision: stream
            .side_data_list
            .iter()
            .find_map(|data| Some((data.dv_profile?, data.dv_bl_signal_compatibility_id.unwrap_or(0)))),
    }
}

/// Clockwise degrees that FFmpeg turns the picture by so that width and height change places or it is upside down.
///
/// As in FFmpeg's `get_rotation` and `configure_input_video_filter`: whole degrees, mirrored or not. By any other
/// angle FFmpeg turns the picture too, but inside a frame of the stored size, with its corners cut off: no turn here.
fn rotation(matrix: &str) -> Option<u32> {
    let rows: Vec<f64> = matrix
        .lines()
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(_, row)| row.split_whitespace())
        .map_while(|cell| cell.parse().ok())
        .collect();
    let [a, b, _, c, d, ..] = rows[..] else { return None };
    let (x, y) = (a.hypot(c), b.hypot(d));
    if x == 0.0 || y == 0.0 {
        return None;
    }
    let degrees = (b / y).atan2(a / x).to_degrees().round().rem_euclid(360.0) as u32;
    Some(if degrees.is_multiple_of(90) { degrees } else { 0 })
}

/// Of one sample: the number at the end of FFmpeg's name (`yuv420p10le`), if it says an order of bytes.
fn bits(pixel_format: &str) -> u32 {
    let Some(name) = pixel_format.strip_suffix("le").or_else(|| pixel_format.strip_suffix("be")) else {
        return 8;
    };
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    match name.get(digits..).and_then(|digits| digits.parse::<u32>().ok()) {
        Some(bits @ 9..=16) => bits,
        // rgb48, rgba64.
        Some(48 | 64) => 16,
        // y210: 4:2:2 of 10 bits.
        Some(number @ 200..=499) => number % 100,
        _ => 8,
    }
}

fn audio(stream: &Stream, start_seconds: f64) -> Audio {
    Audio {
        index: stream.index,
        id: id(stream),
        codec: codec(stream).unwrap_or_default().to_owned(),
        profile: non_empty(stream.profile.as_deref()),
        channels: stream.channels,
        channel_layout: non_empty(stream.channel_layout.as_deref()),
        sample_rate: sample_rate(stream),
        bit_rate: bit_rate(stream),
        language: language(stream),
        title: title(&stream.tags),
        role: stream.disposition.role,
        start_seconds: number(stream.start_time.as_deref()) - start_seconds,
        duration_seconds: duration(stream),
    }
}

fn chapter(mark: &ChapterMark, start_seconds: f64) -> Option<Chapter> {
    let at = |time: &Option<String>| (number(time.as_deref()) - start_seconds).max(0.0);
    let (start, end) = (at(&mark.start_time), at(&mark.end_time));
    (end > start).then(|| Chapter { start_seconds: start, end_seconds: end, title: title(&mark.tags) })
}

fn id(stream: &Stream) -> Option<u32> {
    u32::from_str_radix(stream.id.as_deref()?.strip_prefix("0x")?, 16).ok()
}

fn sample_rate(stream: &Stream) -> u32 {
    stream.sample_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0)
}

fn bit_rate(stream: &Stream) -> u64 {
    stream.bit_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0)
}

fn language(stream: &Stream) -> Option<String> {
    let code = stream.tags.language.as_deref()?;
    let valid = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase());
    (valid && code != "und").then(|| code.to_owned())
}

/// A name that a person gave. MP4 has no other place for it than the handler's name, where programs leave their own.
fn title(tags: &Tags) -> Option<String> {
    const PROGRAMS: [&str; 12] = [
        "handle",
        "core media",
        "isomedia",
        "iso media",
        "produced by",
        "mainconcept",
        "gpac",
        "gopro",
        "l-smash",
        "bento4",
        "vendor",
        "ffmpeg",
    ];
    const KINDS: [&str; 9] =
        ["sound", "soun", "audio", "subtitle", "subtitles", "text", "sbtl", "stereo", "mono"];
    let clean = |text: &str| {
        let text: String = text.chars().filter(|letter| !letter.is_control()).take(LONGEST_TITLE).collect();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let own = |name: &String| {
        let name = name.to_lowercase();
        !KINDS.contains(&name.as_str()) && !PROGRAMS.iter().any(|program| name.contains(program))
    };
    let handler = || tags.handler_name.as_deref().and_then(clean).filter(own);
    tags.title.as_deref().and_then(clean).or_else(handler)
}

/// A value, unless it is one of ffprobe's words for none.
fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !matches!(*text, "" | "unknown" | "unspecified" | "reserved")).map(str::to_owned)
}

/// A finite number of seconds; 0 if there is none.
fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse().ok()).filter(|seconds: &f64| seconds.is_finite()).unwrap_or(0.0)
}

/// Of a duration.
fn seconds(text: Option<&str>) -> f64 {
    number(text).max(0.0)
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
                    dynamic_range: video.colour.dynamic_range().to_string(),
                    bit_rate: video.bit_rate,
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
                    title: audio.title.clone(),
                })
                .collect(),
            subtitles: media
                .subtitles
                .iter()
                .map(|subtitle| job::SubtitleTrack {
                    codec: subtitle.codec.clone(),
                    language: subtitle.language.clone(),
                    title: subtitle.title.clone(),
                    forced: subtitle.role.forced,
                })
                .collect(),
            chapters: media
                .chapters
                .iter()
                .map(|chapter| job::Chapter {
                    start_seconds: chapter.start_seconds,
                    end_seconds: chapter.end_seconds,
                    title: chapter.title.clone(),
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

    /// ffprobe of this machine, asked about a file.
    async fn asked(file: &std::path::Path) -> Result<Media, ProbeError> {
        probe(&Input::File(file.to_owned())).await
    }

    async fn ffmpeg(arguments: &str, folder: &tempfile::TempDir) -> std::path::PathBuf {
        let file = folder.path().join("clip.mp4");
        let made = process::command("ffmpeg")
            .current_dir(folder.path())
            .args(["-loglevel", "error", "-y"])
            .args(arguments.split_whitespace())
            .arg(&file)
            .status();
        assert!(made.await.unwrap().success());
        file
    }

    const VIDEO: &str = "-f lavfi -i testsrc2=size=64x36:rate=25:duration=2 -pix_fmt yuv420p";

    #[tokio::test]
    async fn subtitles_and_chapters_of_a_real_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.srt", "1\n00:00:00,500 --> 00:00:01,000\nHello\n");
        write(
            "a.txt",
            ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=800\ntitle=One\n\
             [CHAPTER]\nTIMEBASE=1/1000\nSTART=800\nEND=2000\ntitle=Two\n",
        );
        let arguments = format!(
            "{VIDEO} -i a.srt -f ffmetadata -i a.txt -map 0 -map 1 -map_chapters 2 -c:s mov_text \
             -metadata:s:s:0 language=deu -metadata:s:s:0 handler_name=Untertitel -disposition:s:0 forced"
        )
        .replace("-pix_fmt yuv420p", "");
        let media = asked(&ffmpeg(&format!("{arguments} -pix_fmt yuv420p"), &folder).await).await.unwrap();
        let [subtitle] = &media.subtitles[..] else { panic!("{:?}", media.subtitles) };
        assert_eq!((subtitle.codec.as_str(), subtitle.language.as_deref()), ("mov_text", Some("deu")));
        assert_eq!((subtitle.title.as_deref(), subtitle.role.forced), (Some("Untertitel"), true));
        let chapters: Vec<_> = media
            .chapters
            .iter()
            .map(|chapter| (chapter.start_seconds, chapter.end_seconds, chapter.title.as_deref()))
            .collect();
        assert_eq!(chapters, [(0.0, 0.8, Some("One")), (0.8, 2.0, Some("Two"))]);
        // The chapters' own track is neither.
        assert!(media.warnings.is_empty(), "{:?}", media.warnings);
    }

    #[tokio::test]
    async fn what_a_real_video_track_says_of_itself() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = format!(
            "{VIDEO} -c:v libx264 -preset veryfast -color_range tv -colorspace bt2020nc -color_trc smpte2084 \
             -color_primaries bt2020"
        );
        let media = asked(&ffmpeg(&arguments, &folder).await).await.unwrap();
        let video = media.video.unwrap();
        assert_eq!((video.codec_tag.as_str(), video.profile.as_deref()), ("avc1", Some("High")));
        assert_eq!((video.id, video.level, video.frames, video.bits), (Some(1), Some(10), Some(50), 8));
        assert_eq!((video.base_frame_rate, video.reordered, video.start_seconds), (25.0, true, 0.0));
        assert!(video.bit_rate > 1000);
        assert_eq!(video.colour.full_range, Some(false));
        assert_eq!(video.colour.space.as_deref(), Some("bt2020nc"));
        assert_eq!(video.colour.dynamic_range(), DynamicRange::Hdr10);
    }

    #[test]
    fn a_track_begins_where_it_begins_after_the_first_one() {
        let media = of(serde_json::json!({
            "format": {"duration": "10", "start_time": "2.5"},
            "streams": [
                {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64,
                 "start_time": "3.5"},
                {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 6, "sample_rate": "48000",
                 "channel_layout": "5.1", "profile": "LC", "start_time": "2.5", "id": "0x1f",
                 "disposition": {"default": 1, "comment": 1, "dub": 0},
                 "tags": {"handler_name": "Director's commentary"}}
            ],
            "chapters": [
                {"start_time": "0", "end_time": "4.5", "tags": {"title": " A\u{7}b "}},
                {"start_time": "9", "end_time": "8"}
            ]
        }))
        .unwrap();
        assert_eq!((media.start_seconds, media.video.unwrap().start_seconds), (2.5, 1.0));
        let audio = &media.audio[0];
        assert_eq!((audio.id, audio.start_seconds, audio.role.default), (Some(31), 0.0, true));
        assert!(audio.role.comment && !audio.role.original);
        assert_eq!(audio.title.as_deref(), Some("Director's commentary"));
        let title = Some("Ab".into());
        assert_eq!(media.chapters, [Chapter { start_seconds: 0.0, end_seconds: 2.0, title }]);
    }

    #[test]
    fn tags_may_come_twice_and_in_any_bytes() {
        let json = b"{\"format\": {}, \"streams\": [{\"index\": 0, \"codec_type\": \"audio\", \"codec_name\": \"aac\",
            \"channels\": 1, \"sample_rate\": \"8000\", \"tags\": {\"title\": \"a\", \"title\": \"b\xff\"}}]}";
        let media = media(parse(json).unwrap()).unwrap();
        assert_eq!(media.audio[0].title.as_deref(), Some("b\u{fffd}"));
    }

    #[test]
    fn programs_leave_no_titles() {
        let of = |name: &str| title(&Tags { handler_name: Some(name.into()), ..Tags::default() });
        for name in [
            "SoundHandler",
            "SoundHandle",
            "Apple Sound Media Handler",
            "Core Media Audio",
            "ISO Media file produced by Google Inc.",
            "GPAC ISO Audio Handler",
            "#Mainconcept MP4 Sound Media Handler",
            "\tGoPro AAC",
            "L-SMASH Audio Handler",
            "Stereo",
            "",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
        assert_eq!(of("Français").as_deref(), Some("Français"));
        assert_eq!(of(&"x".repeat(5000)).unwrap().len(), LONGEST_TITLE);
    }

    #[test]
    fn turns_are_those_that_ffmpeg_makes() {
        // As FFmpeg 5.1 and 7.1 were seen to turn pictures of 160x90 with these matrices.
        let matrix = |a: f64, b: f64, c: f64, d: f64| {
            let fixed = |value: f64| (value * 65_536.0).round() as i64;
            rotation(&format!(
                "\n00000000: {:>12} {:>12} 0\n00000001: {:>12} {:>12} 0\n00000002: 0 0 1073741824\n",
                fixed(a),
                fixed(b),
                fixed(c),
                fixed(d)
            ))
        };
        let turned = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            matrix(cos, sin, -sin, cos)
        };
        let mirrored = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            matrix(-cos, -sin, -sin, cos)
        };
        for (degrees, expected) in
            [(0.0, 0), (90.0, 90), (180.0, 180), (270.0, 270), (89.7, 90), (45.0, 0), (91.0, 0)]
        {
            assert_eq!(turned(degrees), Some(expected), "{degrees}");
        }
        let swapped = |rotation: Option<u32>| rotation.unwrap() % 180 == 90;
        assert_eq!(
            [0.0, 90.0, 180.0, 270.0].map(|degrees| swapped(mirrored(degrees))),
            [false, true, false, true]
        );
        assert_eq!((matrix(0.0, 0.0, 0.0, 0.0), rotation("nonsense")), (None, None));
    }

    #[test]
    fn bits_of_pixel_formats() {
        let formats =
            ["yuv420p", "nv12", "yuv420p10le", "p010le", "gray12be", "rgb48le", "y210le", "rgb565le", ""];
        assert_eq!(formats.map(bits), [8, 8, 10, 10, 12, 16, 10, 8, 8]);
    }

    #[test]
    fn dynamic_ranges_and_their_names() {
        let of = |transfer: &str, dolby_vision| {
            let transfer = non_empty(Some(transfer));
            Colour { transfer, dolby_vision, ..Colour::default() }.dynamic_range().to_string()
        };
        assert_eq!([of("unknown", None), of("bt2020-10", None)], ["sdr", "sdr"]);
        assert_eq!([of("smpte2084", None), of("arib-std-b67", None)], ["hdr10", "hlg"]);
        assert_eq!(of("arib-std-b67", Some((8, 4))), "dolby-vision-8.4");
        assert_eq!(of("unknown", Some((5, 0))), "dolby-vision-5");
    }

    #[test]
    fn encrypted_files_are_told_by_their_packets() {
        let of = |kind: &str| {
            of(serde_json::json!({
                "format": {},
                "streams": [{"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64,
                    "side_data_list": [{"side_data_type": "Encryption initialization data"}]}],
                "packets": [{"side_data_list": [{"side_data_type": kind}]}]
            }))
        };
        assert!(of("Encryption info").unwrap_err().to_string().contains("encrypted"));
        assert!(of("Skip Samples").is_ok());
    }

    #[test]
    fn the_size_that_a_decoder_refuses() {
        let limited = "[h264 @ 0x5] no frame!\n[h264 @ 0x5] [IMGUTILS @ 0x7] Picture size 8192x8000 exceeds specified \
            max pixel count 35389440, see the documentation\n";
        let impossible =
            "[h264 @ 0x5] Picture size 0x0 is invalid\n[h264 @ 0x5] Picture size 16384x16384 is invalid\n";
        assert_eq!(too_large(limited), Some((8192, 8000)));
        assert_eq!(too_large(impossible), Some((16_384, 16_384)));
        assert_eq!(too_large("Picture size 4294967296x1 is invalid"), None);
        assert_eq!(too_large("no frame!"), None);
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
                 "side_data_list": [{"side_data_type": "Display Matrix", "rotation": -90,
                  "displaymatrix": "\n00000000: 0 65536 0\n00000001: -65536 0 0\n00000002: 0 0 1073741824\n"}]},
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
    fn matroska_says_how_long_tracks_are_in_their_tags() {
        let media = of(serde_json::json!({
            "format": {"duration": "60"},
            "streams": [
                {"index": 0, "codec_type": "video", "codec_name": "vp9", "width": 64, "height": 64,
                 "tags": {"DURATION": "00:00:10.040000000"}},
                {"index": 1, "codec_type": "audio", "codec_name": "opus", "channels": 2,
                 "sample_rate": "48000", "tags": {"DURATION": "00:01:00.000000000"}}
            ]
        }))
        .unwrap();
        assert_eq!((media.video.unwrap().duration_seconds, media.audio[0].duration_seconds), (10.04, 60.0));
    }

    #[test]
    fn a_track_of_unknown_sound_is_left_out_with_a_warning() {
        let media = of(serde_json::json!({
            "format": {"duration": "4"},
            "streams": [
                {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64},
                {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 2, "sample_rate": "48000"},
                {"index": 2, "codec_type": "audio", "codec_tag_string": "apac", "channels": 4},
                {"index": 3, "codec_type": "audio", "codec_name": "pcm_s16le", "channels": 999, "sample_rate": "1"},
                {"index": 4, "codec_type": "subtitle", "codec_name": "dvd_subtitle"}
            ]
        }))
        .unwrap();
        assert_eq!(media.audio.iter().map(|audio| audio.index).collect::<Vec<_>>(), [1]);
        let expected = [
            "audio track 2 is in a format (apac) that this service cannot read and was left out",
            "audio track 3 is said to have 999 channels, more than the 8 that are accepted, and was left out",
            "subtitle track 4 is made of pictures instead of text and was left out",
        ];
        assert_eq!(media.warnings, expected);
        assert_eq!(media.video.unwrap().duration_seconds, 0.0, "4 s may be those of the sound");
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

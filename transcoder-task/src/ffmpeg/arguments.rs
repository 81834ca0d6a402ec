//! FFmpeg's arguments: a pure function of the plan, with the reason beside each argument.

use std::os::fd::RawFd;

use crate::{
    analysis::h264::PREFIX_PARAMETER_SETS,
    analysis::limits::{MOST_PIXELS, MOST_SECONDS},
    config::profile::Codec,
    plan::{
        hold::REPEAT_RATE,
        model::{AudioRendition, EncodedPrefix, Encoding, Picture, Plan, SubtitleRendition, VideoRendition},
        resume_point::{AudioResumePoint, ResumePoint},
        segmentation::Boundaries,
        still_interval,
    },
};

use super::{
    audio_input::mapped,
    colour,
    framing::{self, Framing},
    hold,
    loudness::gain_filter,
};

/// Duration of an audio fragment. Segments consist of whole fragments, so audio segments begin at most half a
/// fragment before or after video segments. Each fragment costs a header of about 300 bytes.
const AUDIO_FRAGMENT_MICROSECONDS: u32 = 250_000;
/// Scaling algorithm: sharp without ringing.
const SCALER: &str = "bicubic";
/// Files state the end time of an audio track with at most this error, in seconds.
const ROUNDING: f64 = 0.1;
/// Largest shorter side of a still in pixels.
const STILL_SIZE: u32 = 720;

/// The content of a pipe from FFmpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pipe {
    /// Progress as `key=value` lines, about once per second.
    Progress,
    /// Fragmented MP4 of the first rung's encoded prefix.
    EncodedPrefix,
    /// Fragmented MP4 of a rung, by its index in the plan.
    Video(usize),
    /// Fragmented MP4 of an audio track, by its index in the plan.
    Audio(usize),
    /// WebVTT of a subtitle track, by its index in the plan.
    Subtitles(usize),
    /// Concatenated JPEGs for poster and storyboard.
    Stills,
}

/// One FFmpeg process: its outputs, and its start point in the source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Process {
    /// Pipes in the order of their file descriptors.
    pub(crate) pipes: Vec<Pipe>,
    /// The point to start at; absent for the beginning of the source.
    resume_point: Option<ResumePoint>,
}

/// The FFmpeg processes for a plan, from the beginning of the source or from `resume_point`.
///
/// - Subtitles always start at the beginning. In a resumed attempt they get their own process.
/// - An encoded prefix and the copied rest of its rung get their own processes, because an FFmpeg process
///   reads its input at the pace of its slowest output, and closes its outputs only when all of them end.
pub(crate) fn processes(plan: &Plan, resume_point: Option<&ResumePoint>) -> Vec<Process> {
    let encoded_prefix = plan.encoded_prefix(first_interval(resume_point));
    let rungs = usize::from(encoded_prefix.is_some())..plan.rungs.len();
    let subtitles: Vec<_> = (0..plan.subtitles.len()).map(Pipe::Subtitles).collect();
    let (own_subtitles, subtitles) =
        if resume_point.is_some() { (subtitles, Vec::new()) } else { (Vec::new(), subtitles) };
    let main = [Pipe::Progress]
        .into_iter()
        .chain(rungs.map(Pipe::Video))
        .chain((0..plan.audio.len()).map(Pipe::Audio))
        .chain(subtitles)
        .chain(plan.picture.as_ref().map(|_| Pipe::Stills));
    let prefix_process = encoded_prefix
        .map(|_| Process { pipes: vec![Pipe::EncodedPrefix], resume_point: resume_point.cloned() });
    let copied_rest = encoded_prefix.map(|encoded_prefix| Process {
        pipes: vec![Pipe::Video(0)],
        resume_point: Some(ResumePoint::for_video(&plan.boundaries, encoded_prefix.until)),
    });
    let all = [Process { pipes: main.collect(), resume_point: resume_point.cloned() }]
        .into_iter()
        .chain(prefix_process)
        .chain(copied_rest)
        .chain([Process { pipes: own_subtitles, resume_point: None }]);
    all.filter(|process| !process.pipes.is_empty()).collect()
}

/// The arguments of one of [`processes`]. `input` comes from [`crate::source::loopback::Input::arguments`].
/// `cube` is the path of a file with the text of [`crate::ffmpeg::colour::cube`]. The process's pipes begin
/// at file descriptor `first_fd`.
pub(crate) fn arguments(
    plan: &Plan,
    process: &Process,
    input: &[String],
    cube: &str,
    first_fd: RawFd,
) -> Vec<String> {
    let resume_point = process.resume_point.as_ref();
    let mut args = Arguments::new();
    // Progress has its own pipe, in key=value form, instead of a status line on stderr.
    args.flag("-nostats");
    args.pair("-stats_period", "1");
    // Headers may state a false duration or size, so decoding has its own limits.
    args.pair("-t", MOST_SECONDS.to_string());
    args.pair("-max_pixels", MOST_PIXELS.to_string());
    if let Some(resume_point) = resume_point {
        seek(&mut args, resume_point);
    }
    // The filters adapt to frames that change, and turn them by the plan (see `framing`). FFmpeg would
    // rebuild the graph for each change, and its versions differ in how they turn frames.
    args.pair("-reinit_filter:v", "0");
    args.flag("-noautorotate");
    if let Some((picture, decoder)) =
        plan.picture.as_ref().and_then(|picture| Some((picture, picture.decoder?)))
    {
        args.pair(&format!("-c:{}", picture.stream), decoder);
    }
    args.0.extend(input.iter().cloned());
    if let Some(picture) = plan.picture.as_ref().filter(|_| process.pipes.contains(&Pipe::Stills)) {
        if plan.rungs.iter().any(|rung| rung.encoding.is_some()) {
            args.pair("-filter_complex", graph(picture, plan, resume_point, cube));
        }
        args.pair("-filter_complex", stills(picture, plan, resume_point, cube));
    }
    if let (Some(picture), [Pipe::EncodedPrefix], Some(prefix)) =
        (&plan.picture, process.pipes.as_slice(), plan.encoded_prefix(first_interval(resume_point)))
    {
        args.pair("-filter_complex", encoded_prefix(picture, plan, resume_point, prefix));
    }
    for (pipe, fd) in process.pipes.iter().zip(first_fd..) {
        match *pipe {
            Pipe::Progress => args.pair("-progress", format!("pipe:{fd}")),
            Pipe::EncodedPrefix | Pipe::Video(_) => {
                let index = if let Pipe::Video(index) = *pipe { index } else { 0 };
                if let (Some(rung), Some(picture)) = (plan.rungs.get(index), &plan.picture) {
                    let encoded_prefix =
                        rung.encoded_prefix.as_ref().filter(|_| *pipe == Pipe::EncodedPrefix);
                    match encoded_prefix
                        .map(|encoded_prefix| &encoded_prefix.encoding)
                        .or(rung.encoding.as_ref())
                    {
                        Some(encoding) => {
                            args.pair("-map", format!("[v{index}]"));
                            let rate = picture.hold.is_some().then_some(rung.frame_rate);
                            encoder(&mut args, rung, encoding, encoded_prefix.is_some(), rate);
                            encoded(&mut args, picture, &plan.boundaries, resume_point);
                            if let Some(hold) = &picture.hold {
                                // FFmpeg 5 would take it from the source's rate, and refuses hours.
                                let ticks = hold.timescale / REPEAT_RATE;
                                args.pair("-bsf:v", format!("setts=pts=PTS:dts=DTS:duration={ticks}"));
                            }
                        }
                        None => copied(&mut args, picture, plan, resume_point),
                    }
                    if encoded_prefix.is_some() || rung.is_copied() {
                        // The encoded prefix and the copied rest must have the same timescale. Without this
                        // option, the muxer chooses another one if the source's ticks are long. Before FFmpeg
                        // 6, the `noise` filter that drops packets also needs this timescale.
                        args.pair("-video_track_timescale", picture.timescale.to_string());
                    }
                }
                // dash: a sidx box before each fragment states the time of the next keyframe.
                fragments(&mut args, fd, "+frag_keyframe+dash");
            }
            Pipe::Audio(index) => {
                if let Some(track) = plan.audio.get(index) {
                    let resume_point = resume_point.and_then(|point| point.audio.get(index));
                    audio(&mut args, index, track, resume_point);
                }
                args.pair("-frag_duration", AUDIO_FRAGMENT_MICROSECONDS.to_string());
                fragments(&mut args, fd, "+skip_sidx");
            }
            Pipe::Subtitles(index) => {
                if let Some(track) = plan.subtitles.get(index) {
                    subtitles(&mut args, track, fd);
                }
            }
            Pipe::Stills => {
                args.pair("-map", "[stills]");
                args.pair("-fps_mode", "vfr");
                args.pair("-c:v", "mjpeg");
                args.pair("-q:v", "4");
                args.pair("-f", "image2pipe");
                args.flag(format!("pipe:{fd}"));
            }
        }
    }
    args.0
}

/// The first interval that a process encodes.
fn first_interval(resume_point: Option<&ResumePoint>) -> i64 {
    resume_point.map_or(0, |point| point.interval)
}

/// Seeks to a keyframe before the resume point and keeps the source's times. Filters of each output then drop
/// the frames and packets before the resume point.
fn seek(args: &mut Arguments, resume_point: &ResumePoint) {
    // The first two options make FFmpeg keep the source's times instead of counting from the seek position.
    // The third keeps FFmpeg from dropping frames by itself.
    args.flag("-copyts");
    args.flag("-start_at_zero");
    args.flag("-noaccurate_seek");
    if resume_point.seek_seconds > 0.0 {
        args.pair("-ss", format!("{:.6}", resume_point.seek_seconds));
    }
}

fn subtitles(args: &mut Arguments, track: &SubtitleRendition, fd: RawFd) {
    args.pair("-map", format!("0:{}", track.stream));
    if track.is_ass {
        args.pair("-c:s", "copy");
        args.pair("-f", "ass");
        // The muxer would wait for missing numbers and keep all later events in memory.
        args.pair("-ignore_readorder", "1");
    } else {
        args.pair("-c:s", "webvtt");
        args.pair("-f", "webvtt");
    }
    args.flag(format!("pipe:{fd}"));
}

struct Arguments(Vec<String>);

impl Arguments {
    fn new() -> Self {
        let mut args = Self(Vec::new());
        args.flag("-hide_banner");
        // FFmpeg must not read from a terminal.
        args.flag("-nostdin");
        args.pair("-loglevel", "warning");
        args
    }

    fn flag(&mut self, flag: impl Into<String>) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

/// Size of the stills: that of the largest encoded rung up to [`STILL_SIZE`], else of the smallest encoded
/// rung, else of the copied rung.
#[must_use]
pub(crate) fn still_size(rungs: &[VideoRendition]) -> (u32, u32) {
    let sizes = sizes(rungs);
    let fits = |(width, height): &&(u32, u32)| *width.min(height) <= STILL_SIZE;
    let copied = rungs.first().map_or((2, 2), |rung| (rung.width, rung.height));
    sizes.iter().find(fits).or(sizes.last()).copied().unwrap_or(copied)
}

/// The distinct sizes of encoded rungs, from large to small.
fn sizes(rungs: &[VideoRendition]) -> Vec<(u32, u32)> {
    let encoded = rungs.iter().filter(|rung| rung.encoding.is_some());
    let mut sizes: Vec<_> = encoded.map(|rung| (rung.width, rung.height)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.reverse();
    sizes
}

/// The filter graph of the encoded rungs. FFmpeg decodes the source once for all of them. Each size is scaled
/// from the next larger one, which is much cheaper than scaling the source again.
fn graph(picture: &Picture, plan: &Plan, resume_point: Option<&ResumePoint>, cube: &str) -> String {
    let mut chains = Vec::new();
    let mut from = format!("[0:{}]", picture.stream);
    // Frames that are flagged as progressive stay unchanged.
    let deinterlacer = "bwdif=mode=send_frame:deint=interlaced";
    if let Some(preparation) = framing::preparation(picture, deinterlacer, SCALER) {
        chains.push(format!("{from}{preparation}[frames]"));
        from = "[frames]".into();
    }
    let mut select = resume_point.map(|resume_point| selected(picture, plan, resume_point));
    // Frames before the resume point decide which frames are repeated after it.
    if let Some(select) = select.take_if(|_| picture.hold.is_none()) {
        chains.push(format!("{from}{select}[selected]"));
        from = "[selected]".into();
    }
    let sizes = sizes(&plan.rungs);
    for (index, size) in sizes.iter().enumerate() {
        let (width, height) = *size;
        let of_this_size =
            |rung: &&VideoRendition| rung.encoding.is_some() && (rung.width, rung.height) == *size;
        let rungs = plan.rungs.iter().enumerate().filter(|(_, rung)| of_this_size(rung));
        let mut outputs: Vec<String> = rungs.map(|(rung, _)| format!("[v{rung}]")).collect();
        if index + 1 < sizes.len() {
            outputs.push(format!("[s{index}]"));
        }
        // Colours are converted once, at the largest size. `setsar=1`: the sizes of rungs are in square
        // pixels.
        let filters = if index == 0 {
            colour::filters(picture.colour, &Framing::new(&picture.shape, width, height), SCALER, cube)
        } else {
            format!("scale={width}:{height}:flags={SCALER},setsar=1")
        };
        let mut scale = format!("{from}{filters}");
        if let Some(hold) = picture.hold.as_ref().filter(|_| index == 0) {
            chains.push(format!("{scale}[scaled]"));
            let from_seconds = resume_point.map_or(0.0, |point| point.video_seconds);
            chains.extend(hold::chains(hold, *size, from_seconds, "[scaled]", "[held]"));
            scale = format!("[held]{}", select.take().unwrap_or_else(|| "null".into()));
        }
        match outputs.as_slice() {
            [only] => chains.push(format!("{scale}{only}")),
            several => chains.push(format!("{scale},split={}{}", several.len(), several.concat())),
        }
        from = format!("[s{index}]");
    }
    chains.join(";")
}

/// The filters that select the frames from the resume point on. They use the encoders' time base, because its
/// rounding decides which frames become keyframes.
fn selected(picture: &Picture, plan: &Plan, resume_point: &ResumePoint) -> String {
    format!("settb={},select='{}'", picture.time_base, plan.boundaries.not_before(resume_point.interval))
}

/// The filters of the encoded prefix. The prefix keeps the source's size and colours, and has the time base
/// of the encoded rungs. A copied source does not change its size or format; if it does so against
/// expectation, the encoder must not get such frames.
fn encoded_prefix(
    picture: &Picture,
    plan: &Plan,
    resume_point: Option<&ResumePoint>,
    encoded_prefix: &EncodedPrefix,
) -> String {
    let from = match resume_point {
        Some(resume_point) => selected(picture, plan, resume_point),
        None => format!("settb={}", picture.time_base),
    };
    let end_seconds = plan.boundaries.start_seconds(encoded_prefix.until);
    let (width, height) = picture.shape.size;
    format!(
        "[0:{}]{from},trim=end={end_seconds:.6},scale={width}:{height},format=yuv420p[v0]",
        picture.stream
    )
}

fn stills(picture: &Picture, plan: &Plan, resume_point: Option<&ResumePoint>, cube: &str) -> String {
    let (width, height) = still_size(&plan.rungs);
    let interval = still_interval::seconds(plan.duration_seconds);
    let colours = colour::filters(picture.colour, &Framing::new(&picture.shape, width, height), SCALER, cube);
    // `bwdif` needs the frames in between; this filter needs none.
    let deinterlacer = "estdif=mode=frame:deint=interlaced";
    let preparation = framing::preparation(picture, deinterlacer, SCALER);
    let corrections: Vec<&str> = preparation.iter().map(String::as_str).chain([colours.as_str()]).collect();
    let first = resume_point.map_or(0, |point| point.still);
    let filters = super::stills::filters(interval, first, (width, height), &corrections);
    format!("[0:{}]{filters}[stills]", picture.stream)
}

fn copied(args: &mut Arguments, picture: &Picture, plan: &Plan, resume_point: Option<&ResumePoint>) {
    args.pair("-map", format!("0:{}", picture.stream));
    args.pair("-c:v", "copy");
    // FFmpeg starts to copy at an earlier keyframe. This filter drops the packets before the resume point.
    if let Some(resume_point) = resume_point {
        let first = plan.boundaries.start_seconds(resume_point.interval);
        args.pair("-bsf:v", format!("noise=drop='lt(pts*tb,{first:.6})'"));
    }
}

/// The encoder of a rung. `rate` is the frame rate to state, if the filters have none or the source's.
/// Without it, the encoder takes the ticks of the clock for frames, and claims an absurd level.
fn encoder(
    args: &mut Arguments,
    rung: &VideoRendition,
    encoding: &Encoding,
    is_encoded_prefix: bool,
    rate: Option<f64>,
) {
    let milli = rate.map(|rate| (rate * 1000.0).round().max(1.0) as u32);
    match rung.codec {
        Codec::H264 => h264(args, rung, encoding, is_encoded_prefix, milli),
        Codec::Hevc => hevc(args, rung, encoding, milli),
        Codec::Av1 => av1(args, rung, encoding, milli),
    }
}

fn encoded(
    args: &mut Arguments,
    picture: &Picture,
    boundaries: &Boundaries,
    resume_point: Option<&ResumePoint>,
) {
    let (first, from_seconds) =
        resume_point.map_or((0, picture.start_seconds), |point| (point.interval, point.video_seconds));
    args.pair("-force_key_frames", boundaries.forced_keyframes(first, from_seconds));
    // FFmpeg's default time base (1/frame rate) would shift the frames of a variable frame rate.
    args.pair("-enc_time_base", picture.time_base.replace('/', ":"));
    // Encode each frame once, at its own time. The default may repeat frames to make the frame rate constant.
    args.pair("-fps_mode", "vfr");
}

/// Constant quality under a maximum rate, so that easy content costs few bits. Apple's authoring rules allow
/// a buffer of two seconds. GOPs are closed, and keyframes lie only at segment boundaries, not at scene cuts
/// or regular distances, so that every rung has the same segments.
fn h264(
    args: &mut Arguments,
    rung: &VideoRendition,
    encoding: &Encoding,
    is_encoded_prefix: bool,
    milli_rate: Option<u32>,
) {
    args.pair("-c:v", "libx264");
    args.pair("-preset", &encoding.preset);
    args.pair("-crf", encoding.crf.to_string());
    args.pair("-maxrate", format!("{}k", rung.max_kbps));
    args.pair("-bufsize", format!("{}k", rung.max_kbps * 2));
    args.pair("-sc_threshold", "0");
    // A keyframe distance that is never reached.
    args.pair("-g", "100000");
    let parameter_sets = format!("sps-id={PREFIX_PARAMETER_SETS}");
    let parameter_sets = if is_encoded_prefix { parameter_sets.as_str() } else { "" };
    let rate = milli_rate.map_or_else(String::new, |rate| format!("fps={rate}/1000"));
    args.pair("-x264-params", join(&["open-gop=0", &rate, &encoding.params, parameter_sets]));
}

/// The settings of [`h264`] for x265.
fn hevc(args: &mut Arguments, rung: &VideoRendition, encoding: &Encoding, milli_rate: Option<u32>) {
    args.pair("-c:v", "libx265");
    args.pair("-preset", &encoding.preset);
    args.pair("-crf", encoding.crf.to_string());
    args.pair("-forced-idr", "1");
    args.pair(
        "-x265-params",
        join(&[
            &format!("vbv-maxrate={}:vbv-bufsize={}", rung.max_kbps, rung.max_kbps * 2),
            &milli_rate.map_or_else(String::new, |rate| format!("fps={rate}/1000")),
            // `info` would write the number of processors into the init segment, so an attempt on another
            // machine could not resume.
            "scenecut=0:keyint=100000:min-keyint=1:open-gop=0:log-level=1:info=0",
            &encoding.params,
        ]),
    );
    // Apple's players accept no other tag.
    args.pair("-tag:v", "hvc1");
}

/// The settings of [`h264`] for SVT-AV1.
fn av1(args: &mut Arguments, rung: &VideoRendition, encoding: &Encoding, milli_rate: Option<u32>) {
    args.pair("-c:v", "libsvtav1");
    args.pair("-preset", &encoding.preset);
    args.pair("-crf", encoding.crf.to_string());
    args.pair("-g", "100000");
    // SVT-AV1 before 2.0 needs this option for forced keyframes; later versions always obey them.
    let params = format!("enable-force-key-frames=1:scd=0:mbr={}", rung.max_kbps);
    let rate = milli_rate.map_or_else(String::new, |rate| format!("fps-num={rate}:fps-denom=1000"));
    args.pair("-svtav1-params", join(&[&params, &rate, &encoding.params]));
}

/// Joins encoder parameters into one list.
fn join(lists: &[&str]) -> String {
    lists.iter().filter(|list| !list.is_empty()).copied().collect::<Vec<_>>().join(":")
}

fn audio(
    args: &mut Arguments,
    index: usize,
    track: &AudioRendition,
    resume_point: Option<&AudioResumePoint>,
) {
    let rate = track.sample_rate;
    let fed_seconds = resume_point.map_or(0.0, |point| point.fed_ticks as f64 / f64::from(rate));
    match track.layout {
        None => {
            args.pair("-map", format!("0:{}", track.stream));
            args.pair("-c:a", "copy");
        }
        // The track has ended before the resume point. FFmpeg fails for a track without output, so silence
        // replaces it.
        Some(layout)
            if resume_point.is_some() && (ROUNDING..fed_seconds + ROUNDING).contains(&track.end_seconds) =>
        {
            let samples = ((track.at_least_seconds - fed_seconds) * f64::from(rate)).ceil().max(1.0);
            let fed = resume_point.map_or(0, |point| point.fed_ticks);
            let silence = format!(
                "anullsrc=channel_layout={layout}:sample_rate={rate},atrim=end_sample={samples},asetpts=PTS+{fed}"
            );
            args.pair("-filter_complex", format!("{silence}[a{index}]"));
            args.pair("-map", format!("[a{index}]"));
            args.pair("-c:a", "aac");
            args.pair("-b:a", format!("{}k", track.kbps));
            args.pair("-ar", rate.to_string());
        }
        Some(layout) => {
            // Silence fills the gaps in a damaged source. Without it, all later audio would play too early.
            // It also extends the track to the start and end of the stream, because some players (Shaka
            // Player, for example) end a stream with its shortest track. `first_pts` is set only if the track
            // begins late, because FFmpeg applies it again whenever channels or sample rate change.
            // The two tracks of a pair also need it, to begin together.
            let is_pair = track.right.is_some();
            let align = match resume_point {
                // `first_pts` counts samples at the input's rate, so the first `aresample` converts the rate.
                Some(resume_point) if is_pair || (track.begins_late && fed_seconds < track.start_seconds) => {
                    format!("aresample={rate},aresample=async=1:first_pts={}", resume_point.fed_ticks)
                }
                None if is_pair || track.begins_late => "aresample=async=1:first_pts=0".to_owned(),
                _ => "aresample=async=1".to_owned(),
            };
            let mut filters = vec![format!("aformat=channel_layouts={layout}")];
            filters.extend(track.gain.map(gain_filter));
            if let Some(resume_point) = resume_point {
                filters
                    .push(format!("aformat=sample_rates={rate},atrim=start_pts={}", resume_point.fed_ticks));
            }
            if track.at_least_seconds > fed_seconds {
                filters.push(match track.end_seconds {
                    // The stream may end before the track, so nothing may be cut.
                    unknown if unknown <= 0.0 => {
                        format!("apad=whole_dur={:.3}", track.at_least_seconds - fed_seconds)
                    }
                    // A limit of `apad` counts from the last change of channels or sample rate, because
                    // FFmpeg builds the filters anew for each. Times do not.
                    _ => format!("apad,atrim=end={:.6}", track.at_least_seconds),
                });
            }
            let [map, filter] = mapped(track, &format!("a{index}"), &align, &filters);
            args.0.extend(map);
            args.pair("-c:a", "aac");
            args.pair("-b:a", format!("{}k", track.kbps));
            args.0.extend(filter);
            args.pair("-ar", rate.to_string());
        }
    }
    // The encoder's priming packet lies before time 0. Fragmented MP4 could express that only with an edit
    // list, which not all players treat in the same way. Without the packet, audio stays exactly on time.
    let early = match resume_point {
        None => "lt(pts,0)".to_owned(),
        // The limit lies half a packet before the first packet to publish, as a margin for rounding.
        Some(resume_point) => {
            let first_seconds = (resume_point.first_ticks as f64 - 512.0) / f64::from(rate);
            format!("lt(pts*tb,{first_seconds:.6})")
        }
    };
    // Packets that go back in time are dropped, too: whenever channels or sample rate change, `first_pts`
    // adds silence from the start again, and FFmpeg 5 states a wrong time for one frame.
    let dropped = format!("if({early}+lt(pts,ld(0)),1,0*st(0,pts+1))");
    args.pair("-bsf:a", format!("noise=drop='{dropped}'"));
}

/// The options for fragmented MP4 that is written to a pipe.
fn fragments(args: &mut Arguments, fd: RawFd, extra: &str) {
    // empty_moov: the init segment comes first. default_base_moof: fragments are independent of their
    // position. frag_discont and disabled avoid_negative_ts: the first sample keeps its own time instead of
    // moving to 0. negative_cts_offsets: decoding and presentation begin at the same time, so reordering does
    // not delay video against audio.
    args.pair("-movflags", format!("{extra}+empty_moov+default_base_moof+frag_discont+negative_cts_offsets"));
    args.pair("-avoid_negative_ts", "disabled");
    // The source's tags (place, device, author) are private and do not belong in a published stream.
    args.pair("-map_metadata", "-1");
    args.pair("-map_chapters", "-1");
    args.pair("-f", "mp4");
    args.flag(format!("pipe:{fd}"));
}

#[cfg(test)]
mod tests;

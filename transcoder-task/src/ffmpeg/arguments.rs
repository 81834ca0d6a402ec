//! How FFmpeg is told: a pure function from the plan to its arguments, each with its reason.

use std::os::fd::RawFd;

use crate::{
    analysis::ffprobe::{MOST_PIXELS, MOST_SECONDS},
    analysis::sample_index::PREFIX_PARAMETER_SETS,
    config::profile::Codec,
    package::stills,
    plan::{
        model::{AudioRendition, EncodedPrefix, Encoding, Picture, Plan, SubtitleRendition, VideoRendition},
        resume_point::{AudioResumePoint, ResumePoint},
        segmentation::Boundaries,
    },
};

use super::{colour, loudness::gain_filter};

/// Length of an audio fragment. A segment is made of whole fragments, so audio segments begin at most half of
/// this before or after video's; shorter fragments cost a header of some 300 bytes each.
const AUDIO_FRAGMENT_MICROSECONDS: u32 = 250_000;
/// Sharp without ringing.
const SCALER: &str = "bicubic";
/// What files say about when their sound ends may be off by this, in seconds.
const ROUNDING: f64 = 0.1;
/// Shorter side of a still at most.
const STILL_SIZE: u32 = 720;

/// What a pipe out of FFmpeg carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pipe {
    /// `key=value` lines about once a second.
    Progress,
    /// Fragmented MP4 of what is encoded in front of the first rung, which is published as it is.
    EncodedPrefix,
    /// Fragmented MP4 of a rung, by its index in the plan.
    Video(usize),
    /// Fragmented MP4 of an audio track, by its index in the plan.
    Audio(usize),
    /// WebVTT of a subtitle track, by its index in the plan.
    Subtitles(usize),
    /// JPEGs, one behind the other, for poster and storyboard.
    Stills,
}

/// What one FFmpeg makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// In the order of their file descriptors.
    pub pipes: Vec<Pipe>,
    /// Where it begins; absent for the source's beginning.
    start: Option<ResumePoint>,
}

/// The FFmpegs that make a plan, for the whole of it or from `start` on. Subtitles always come from the source's beginning,
/// by one of their own if everything else does not: FFmpeg skips what belongs to other tracks. So do the two parts of a rung
/// of which only the beginning is encoded: FFmpeg reads its input at the pace of all that it makes, and ends what it makes
/// when all of it ends.
pub fn processes(plan: &Plan, start: Option<&ResumePoint>) -> Vec<Process> {
    let encoded_prefix = plan.encoded_prefix(first_interval(start));
    let rungs = usize::from(encoded_prefix.is_some())..plan.rungs.len();
    let texts: Vec<_> = (0..plan.subtitles.len()).map(Pipe::Subtitles).collect();
    let (texts_alone, texts) = if start.is_some() { (texts, Vec::new()) } else { (Vec::new(), texts) };
    let main = [Pipe::Progress]
        .into_iter()
        .chain(rungs.map(Pipe::Video))
        .chain((0..plan.audio.len()).map(Pipe::Audio))
        .chain(texts)
        .chain(plan.picture.as_ref().map(|_| Pipe::Stills));
    let lead_alone =
        encoded_prefix.map(|_| Process { pipes: vec![Pipe::EncodedPrefix], start: start.cloned() });
    let behind_the_lead = encoded_prefix.map(|encoded_prefix| Process {
        pipes: vec![Pipe::Video(0)],
        start: Some(ResumePoint::of_the_picture(&plan.boundaries, encoded_prefix.until)),
    });
    let all = [Process { pipes: main.collect(), start: start.cloned() }]
        .into_iter()
        .chain(lead_alone)
        .chain(behind_the_lead)
        .chain([Process { pipes: texts_alone, start: None }]);
    all.filter(|process| !process.pipes.is_empty()).collect()
}

/// The arguments of one of [`processes`]. `input` comes from [`crate::source::loopback::Input::arguments`]; the text of the picture's
/// [`crate::ffmpeg::colour::Colour::cube`] is in the file `cube`; the process's pipes are open from file descriptor `first_fd` on.
pub fn arguments(
    plan: &Plan,
    process: &Process,
    input: &[String],
    cube: &str,
    first_fd: RawFd,
) -> Vec<String> {
    let start = process.start.as_ref();
    let mut args = Arguments::new();
    // Progress comes as key=value on its own pipe, not as a line for people on stderr.
    args.flag("-nostats");
    args.pair("-stats_period", "1");
    // A header may lie: what is decoded is bounded, too.
    args.pair("-t", MOST_SECONDS.to_string());
    args.pair("-max_pixels", MOST_PIXELS.to_string());
    if let Some(start) = start {
        seek(&mut args, start);
    }
    args.0.extend(input.iter().cloned());
    if let Some(picture) = plan.picture.as_ref().filter(|_| process.pipes.contains(&Pipe::Stills)) {
        if plan.rungs.iter().any(|rung| rung.encoding.is_some()) {
            args.pair("-filter_complex", graph(picture, plan, start, cube));
        }
        args.pair("-filter_complex", stills(picture, plan, start, cube));
    }
    if let (Some(picture), [Pipe::EncodedPrefix], Some(of_the_plan)) =
        (&plan.picture, process.pipes.as_slice(), plan.encoded_prefix(first_interval(start)))
    {
        args.pair("-filter_complex", encoded_prefix(picture, plan, start, of_the_plan));
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
                            encoder(&mut args, rung, encoding, encoded_prefix.is_some());
                            encoded(&mut args, picture, &plan.boundaries, start);
                        }
                        None => copied(&mut args, picture, plan, start),
                    }
                    if encoded_prefix.is_some() || rung.encoding.is_none() {
                        // One clock for both, and before FFmpeg 6 for the filter that drops packets, too: the muxer would
                        // take another if this one had long ticks.
                        args.pair("-video_track_timescale", picture.timescale.to_string());
                    }
                }
                fragments(&mut args, fd, "+frag_keyframe");
            }
            Pipe::Audio(index) => {
                if let Some(track) = plan.audio.get(index) {
                    let start = start.and_then(|start| start.sounds.get(index));
                    audio(&mut args, index, track, start);
                }
                args.pair("-frag_duration", AUDIO_FRAGMENT_MICROSECONDS.to_string());
                fragments(&mut args, fd, "");
            }
            Pipe::Subtitles(index) => {
                if let Some(track) = plan.subtitles.get(index) {
                    text(&mut args, track, fd);
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
fn first_interval(start: Option<&ResumePoint>) -> i64 {
    start.map_or(0, |start| start.interval)
}

/// Begins before what is wanted, at a keyframe, and keeps the source's times. What comes too early is left out behind
/// the decoders.
fn seek(args: &mut Arguments, start: &ResumePoint) {
    // Without these two, times would count from where FFmpeg begins, and without the third FFmpeg would cut by itself.
    args.flag("-copyts");
    args.flag("-start_at_zero");
    args.flag("-noaccurate_seek");
    if start.seek_seconds > 0.0 {
        args.pair("-ss", format!("{:.6}", start.seek_seconds));
    }
}

fn text(args: &mut Arguments, track: &SubtitleRendition, fd: RawFd) {
    args.pair("-map", format!("0:{}", track.stream));
    args.pair("-c:s", "webvtt");
    args.pair("-f", "webvtt");
    args.flag(format!("pipe:{fd}"));
}

struct Arguments(Vec<String>);

impl Arguments {
    fn new() -> Self {
        let mut args = Self(Vec::new());
        args.flag("-hide_banner");
        // Never waits for a key.
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

/// Width and height of the stills: those of the largest rung that is encoded of at most [`STILL_SIZE`], or else
/// of the smallest; of a rung that is published as it is, if there is no other.
pub fn still_size(rungs: &[VideoRendition]) -> (u32, u32) {
    let sizes = sizes(rungs);
    let fits = |(width, height): &&(u32, u32)| *width.min(height) <= STILL_SIZE;
    let copied = rungs.first().map_or((2, 2), |rung| (rung.width, rung.height));
    sizes.iter().find(fits).or(sizes.last()).copied().unwrap_or(copied)
}

/// Of the rungs that are encoded, each once, largest first.
fn sizes(rungs: &[VideoRendition]) -> Vec<(u32, u32)> {
    let encoded = rungs.iter().filter(|rung| rung.encoding.is_some());
    let mut sizes: Vec<_> = encoded.map(|rung| (rung.width, rung.height)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.reverse();
    sizes
}

/// One decode for everything: each size is scaled from the next larger one, which costs a fraction of scaling
/// the source again.
fn graph(picture: &Picture, plan: &Plan, start: Option<&ResumePoint>, cube: &str) -> String {
    let mut chains = Vec::new();
    let mut from = format!("[0:{}]", picture.stream);
    // FFmpeg turns the picture upright by itself, before this graph.
    if picture.deinterlace {
        // Frames that say they are progressive stay as they are.
        chains.push(format!("{from}bwdif=mode=send_frame:deint=interlaced[frames]"));
        from = "[frames]".into();
    }
    if let Some(start) = start {
        chains.push(format!("{from}{}[wanted]", wanted(picture, plan, start)));
        from = "[wanted]".into();
    }
    let sizes = sizes(&plan.rungs);
    for (index, size) in sizes.iter().enumerate() {
        let (width, height) = *size;
        let of_this_size =
            |rung: &&VideoRendition| rung.encoding.is_some() && (rung.width, rung.height) == *size;
        let rungs = plan.rungs.iter().enumerate().filter(|(_, rung)| of_this_size(rung));
        let mut takers: Vec<String> = rungs.map(|(rung, _)| format!("[v{rung}]")).collect();
        if index + 1 < sizes.len() {
            takers.push(format!("[s{index}]"));
        }
        // Colours are changed once, for the largest size. Sizes are already in square pixels.
        let filters = if index == 0 {
            colour::filters(picture.colour, width, height, SCALER, cube)
        } else {
            format!("scale={width}:{height}:flags={SCALER}")
        };
        let scale = format!("{from}{filters},setsar=1");
        match takers.as_slice() {
            [only] => chains.push(format!("{scale}{only}")),
            several => chains.push(format!("{scale},split={}{}", several.len(), several.concat())),
        }
        from = format!("[s{index}]");
    }
    chains.join(";")
}

/// On the encoders' clock, whose rounding decides where keyframes are forced.
fn wanted(picture: &Picture, plan: &Plan, start: &ResumePoint) -> String {
    format!("settb={},select='{}'", picture.time_base, plan.boundaries.not_before(start.interval))
}

/// In the source's own size and colours. Its clock may be too coarse for an instant between two frames.
fn encoded_prefix(
    picture: &Picture,
    plan: &Plan,
    start: Option<&ResumePoint>,
    encoded_prefix: &EncodedPrefix,
) -> String {
    let from = match start {
        Some(start) => wanted(picture, plan, start),
        None => format!("settb={}", picture.time_base),
    };
    let end_seconds = plan.boundaries.start_seconds(encoded_prefix.until);
    format!("[0:{}]{from},trim=end={end_seconds:.6}[v0]", picture.stream)
}

fn stills(picture: &Picture, plan: &Plan, start: Option<&ResumePoint>, cube: &str) -> String {
    let (width, height) = still_size(&plan.rungs);
    let interval = stills::interval_seconds(plan.duration_seconds);
    let colours = colour::filters(picture.colour, width, height, SCALER, cube);
    // One field is enough for a small picture.
    let corrections = [picture.deinterlace.then_some("field=top"), Some(colours.as_str())];
    let corrections: Vec<&str> = corrections.into_iter().flatten().collect();
    let first = start.map_or(0, |start| start.still);
    let filters = stills::filters(interval, first, (width, height), &corrections);
    format!("[0:{}]{filters}[stills]", picture.stream)
}

fn copied(args: &mut Arguments, picture: &Picture, plan: &Plan, start: Option<&ResumePoint>) {
    args.pair("-map", format!("0:{}", picture.stream));
    args.pair("-c:v", "copy");
    // FFmpeg begins at an earlier keyframe.
    if let Some(start) = start {
        let first = plan.boundaries.start_seconds(start.interval);
        args.pair("-bsf:v", format!("noise=drop='lt(pts*tb,{first:.6})'"));
    }
}

fn encoder(args: &mut Arguments, rung: &VideoRendition, encoding: &Encoding, is_lead: bool) {
    match rung.codec {
        Codec::H264 => h264(args, rung, encoding, is_lead),
        Codec::Hevc => hevc(args, rung, encoding),
        Codec::Av1 => av1(args, rung, encoding),
    }
}

fn encoded(args: &mut Arguments, picture: &Picture, boundaries: &Boundaries, start: Option<&ResumePoint>) {
    let (first, from_seconds) =
        start.map_or((0, picture.start_seconds), |start| (start.interval, start.picture_seconds));
    args.pair("-force_key_frames", boundaries.forced_keyframes(first, from_seconds));
    // The source's own clock: with FFmpeg's guess (1/frame rate) frames of variable rate would move.
    args.pair("-enc_time_base", picture.time_base.replace('/', ":"));
    // Every frame once at its own time; the default may repeat frames until the rate is constant.
    args.pair("-fps_mode", "vfr");
}

/// Constant quality under a maximum rate: easy content costs few bits. A buffer of two seconds is what
/// Apple's authoring rules allow for. Keyframes stand where segments begin and nowhere else, so that every rung
/// has the same segments: none by scene cuts, none by distance, all closed.
fn h264(args: &mut Arguments, rung: &VideoRendition, encoding: &Encoding, is_lead: bool) {
    args.pair("-c:v", "libx264");
    args.pair("-preset", &encoding.preset);
    args.pair("-crf", encoding.crf.to_string());
    args.pair("-maxrate", format!("{}k", rung.max_kbps));
    args.pair("-bufsize", format!("{}k", rung.max_kbps * 2));
    args.pair("-sc_threshold", "0");
    // x264 takes a large distance as it is.
    args.pair("-g", "100000");
    let parameter_sets = format!("sps-id={PREFIX_PARAMETER_SETS}");
    let parameter_sets = if is_lead { parameter_sets.as_str() } else { "" };
    args.pair("-x264-params", join(&["open-gop=0", &encoding.params, parameter_sets]));
}

/// As [`h264`].
fn hevc(args: &mut Arguments, rung: &VideoRendition, encoding: &Encoding) {
    args.pair("-c:v", "libx265");
    args.pair("-preset", &encoding.preset);
    args.pair("-crf", encoding.crf.to_string());
    args.pair("-forced-idr", "1");
    args.pair(
        "-x265-params",
        join(&[
            &format!("vbv-maxrate={}:vbv-bufsize={}", rung.max_kbps, rung.max_kbps * 2),
            // Without `info`, the number of processors would be told in the init segment, and nothing be gone on with on
            // a machine with another.
            "scenecut=0:keyint=100000:min-keyint=1:open-gop=0:log-level=1:info=0",
            &encoding.params,
        ]),
    );
    // Apple's players take no other.
    args.pair("-tag:v", "hvc1");
}

/// As [`h264`].
fn av1(args: &mut Arguments, rung: &VideoRendition, encoding: &Encoding) {
    args.pair("-c:v", "libsvtav1");
    args.pair("-preset", &encoding.preset);
    args.pair("-crf", encoding.crf.to_string());
    args.pair("-g", "100000");
    // SVT-AV1 before 2.0 takes forced keyframes only if told to; later ones always do.
    let params = format!("enable-force-key-frames=1:scd=0:mbr={}", rung.max_kbps);
    args.pair("-svtav1-params", join(&[&params, &encoding.params]));
}

/// Encoders' parameters in one list.
fn join(lists: &[&str]) -> String {
    lists.iter().filter(|list| !list.is_empty()).copied().collect::<Vec<_>>().join(":")
}

fn audio(args: &mut Arguments, index: usize, track: &AudioRendition, start: Option<&AudioResumePoint>) {
    let rate = track.sample_rate;
    let fed_seconds = start.map_or(0.0, |start| start.fed_ticks as f64 / f64::from(rate));
    match track.layout {
        None => {
            args.pair("-map", format!("0:{}", track.stream));
            args.pair("-c:a", "copy");
        }
        // FFmpeg fails where nothing comes out of a track: only silence is left of this one.
        Some(layout)
            if start.is_some() && (ROUNDING..fed_seconds + ROUNDING).contains(&track.end_seconds) =>
        {
            let samples = ((track.at_least_seconds - fed_seconds) * f64::from(rate)).ceil().max(1.0);
            let fed = start.map_or(0, |start| start.fed_ticks);
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
            args.pair("-map", format!("0:{}", track.stream));
            args.pair("-c:a", "aac");
            args.pair("-b:a", format!("{}k", track.kbps));
            // Holes in a damaged or odd source become silence (without that, all behind them would come early),
            // and so does what is missing at the picture's beginning and end: some players, Shaka Player among
            // them, end a stream with its shortest track. (Where nothing is missing at the beginning, a 0 would
            // only do harm: FFmpeg begins anew when the channels change.)
            let mut filters = Vec::new();
            match start {
                // A first time is counted in samples of the rate that comes in.
                Some(start) if track.begins_late && fed_seconds < track.start_seconds => {
                    filters.push(format!("aresample={rate},aresample=async=1:first_pts={}", start.fed_ticks));
                }
                None if track.begins_late => filters.push("aresample=async=1:first_pts=0".to_owned()),
                _ => filters.push("aresample=async=1".to_owned()),
            }
            filters.push(format!("aformat=channel_layouts={layout}"));
            filters.extend(track.gain.map(gain_filter));
            if let Some(start) = start {
                filters.push(format!("aformat=sample_rates={rate},atrim=start_pts={}", start.fed_ticks));
            }
            if track.at_least_seconds > fed_seconds {
                filters.push(format!("apad=whole_dur={:.3}", track.at_least_seconds - fed_seconds));
            }
            args.pair("-af", filters.join(","));
            args.pair("-ar", rate.to_string());
        }
    }
    // The encoder's priming frame lies before time 0, where fragments cannot say so without an edit
    // list, which players treat differently: leaving it out keeps audio exactly on time.
    args.pair(
        "-bsf:a",
        match start {
            None => "noise=drop='lt(pts,0)'".to_owned(),
            // Half a packet before the first one, whatever the clock.
            Some(start) => {
                let first_seconds = (start.first_ticks as f64 - 512.0) / f64::from(rate);
                format!("noise=drop='lt(pts*tb,{first_seconds:.6})'")
            }
        },
    );
}

/// Fragmented MP4 into a pipe.
fn fragments(args: &mut Arguments, fd: RawFd, extra: &str) {
    // empty_moov: the init segment comes first. default_base_moof: fragments can be cut out. skip_sidx: a
    // sidx would have to be rewritten. frag_discont and disabled avoid_negative_ts: the first sample keeps
    // its own time instead of being moved to 0. negative_cts_offsets: decoding and presentation begin at the
    // same time, so reordering does not delay the picture against the sound.
    args.pair(
        "-movflags",
        format!("{extra}+empty_moov+default_base_moof+skip_sidx+frag_discont+negative_cts_offsets"),
    );
    args.pair("-avoid_negative_ts", "disabled");
    // Tags of the source (place, device, author) are nobody's business in a published stream.
    args.pair("-map_metadata", "-1");
    args.pair("-map_chapters", "-1");
    args.pair("-f", "mp4");
    args.flag(format!("pipe:{fd}"));
}

#[cfg(test)]
mod tests;

//! How FFmpeg is told: a pure function from the plan to its arguments, each with its reason.

use std::os::fd::RawFd;

use crate::{
    plan::{AudioRendition, Picture, Plan, VideoRendition},
    probe::{LONGEST_SIDE, MOST_SECONDS},
};

/// Length of an audio fragment. A segment is made of whole fragments, so audio segments begin at most this
/// much after video's; shorter fragments cost a header of some 300 bytes each.
const AUDIO_FRAGMENT_MICROSECONDS: u32 = 500_000;
/// Frames that the poster is chosen from, a second apart.
const STILLS: u32 = 10;
/// Shorter side of the poster at most.
const POSTER_SIZE: u32 = 720;

/// What a pipe out of FFmpeg carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// `key=value` lines about once a second.
    Progress,
    /// Fragmented MP4 of a rung, by its index in the plan.
    Video(usize),
    /// Fragmented MP4 of an audio track, by its index in the plan.
    Audio(usize),
    /// A few JPEGs, one behind the other, to choose the poster from.
    Stills,
}

/// The pipes of a plan, in the order of their file descriptors.
pub fn pipes(plan: &Plan) -> Vec<Pipe> {
    let stills = plan.picture.as_ref().map(|_| Pipe::Stills);
    [Pipe::Progress]
        .into_iter()
        .chain((0..plan.rungs.len()).map(Pipe::Video))
        .chain((0..plan.audio.len()).map(Pipe::Audio))
        .chain(stills)
        .collect()
}

/// FFmpeg's arguments. `input` comes from [`crate::input::Input::arguments`]; the pipes of [`pipes`] are open
/// from file descriptor `first_fd` on.
pub fn arguments(plan: &Plan, input: &[String], first_fd: RawFd) -> Vec<String> {
    let mut args = Arguments::default();
    args.flag("-hide_banner");
    // Never waits for a key.
    args.flag("-nostdin");
    args.pair("-loglevel", "warning");
    // Progress comes as key=value on its own pipe, not as a line for people on stderr.
    args.flag("-nostats");
    args.pair("-stats_period", "1");
    // A header may lie: what is decoded is bounded, too.
    args.pair("-t", MOST_SECONDS.to_string());
    args.pair("-max_pixels", (u64::from(LONGEST_SIDE) * u64::from(LONGEST_SIDE)).to_string());
    args.0.extend(input.iter().cloned());
    if let Some(picture) = &plan.picture {
        args.pair("-filter_complex", graph(picture, &plan.rungs));
    }
    for (pipe, fd) in pipes(plan).into_iter().zip(first_fd..) {
        match pipe {
            Pipe::Progress => args.pair("-progress", format!("pipe:{fd}")),
            Pipe::Video(index) => {
                if let (Some(rung), Some(picture)) = (plan.rungs.get(index), &plan.picture) {
                    video(&mut args, index, rung, picture, plan);
                }
                fragments(&mut args, fd, "+frag_keyframe");
            }
            Pipe::Audio(index) => {
                if let Some(track) = plan.audio.get(index) {
                    audio(&mut args, track);
                }
                args.pair("-frag_duration", AUDIO_FRAGMENT_MICROSECONDS.to_string());
                fragments(&mut args, fd, "");
            }
            Pipe::Stills => {
                args.pair("-map", "[stills]");
                args.pair("-frames:v", STILLS.to_string());
                args.pair("-fps_mode", "vfr");
                args.pair("-c:v", "mjpeg");
                args.pair("-q:v", "3");
                args.pair("-f", "image2pipe");
                args.flag(format!("pipe:{fd}"));
            }
        }
    }
    args.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: impl Into<String>) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

/// One decode for everything: each rung is scaled from the next larger one, which costs a fraction of
/// scaling the source again, and the poster comes from the largest rung of at most [`POSTER_SIZE`].
fn graph(picture: &Picture, rungs: &[VideoRendition]) -> String {
    let mut chains = Vec::new();
    let mut from = format!("[0:{}]", picture.stream);
    // FFmpeg turns the picture upright by itself, before this graph.
    if picture.deinterlace {
        chains.push(format!("{from}bwdif=mode=send_frame:deint=all[frames]"));
        from = "[frames]".into();
    }
    let poster_rung = rungs
        .iter()
        .position(|rung| rung.width.min(rung.height) <= POSTER_SIZE)
        .unwrap_or(rungs.len().saturating_sub(1));
    for (index, rung) in rungs.iter().enumerate() {
        let mut takers = vec![format!("[v{index}]")];
        if index == poster_rung {
            takers.push("[still]".into());
        }
        if index + 1 < rungs.len() {
            takers.push(format!("[s{index}]"));
        }
        // Limited range and 8-bit 4:2:0 is what every player decodes. Sizes are already in square pixels.
        chains.push(format!(
            "{from}scale={}:{}:flags=bicubic:out_range=tv,setsar=1,format=yuv420p,split={}{}",
            rung.width,
            rung.height,
            takers.len(),
            takers.concat()
        ));
        from = format!("[s{index}]");
    }
    // One frame a second, for a choice: a first frame is often black. The first one comes at once, because
    // FFmpeg 7 holds back all outputs, in memory, until each has begun (a `thumbnail` filter would take
    // seconds). Times are new, as a frame before 0 would be dropped.
    chains.push(
        "[still]select='isnan(prev_selected_t)+gte(t-prev_selected_t,1)',setpts=N/TB,\
         scale=out_range=pc,format=yuvj420p[stills]"
            .into(),
    );
    chains.join(";")
}

fn video(args: &mut Arguments, index: usize, rung: &VideoRendition, picture: &Picture, plan: &Plan) {
    args.pair("-map", format!("[v{index}]"));
    args.pair("-c:v", "libx264");
    args.pair("-preset", &rung.preset);
    // Constant quality under a maximum rate: easy content costs few bits. A buffer of two seconds is what
    // Apple's authoring rules allow for.
    args.pair("-crf", rung.crf.to_string());
    args.pair("-maxrate", format!("{}k", rung.max_kbps));
    args.pair("-bufsize", format!("{}k", rung.max_kbps * 2));
    // Keyframes stand where segments begin and nowhere else, so that every rung has the same segments:
    // none by scene cuts, none by distance (x264 takes a large -g as it is), all closed.
    args.pair("-sc_threshold", "0");
    args.pair("-g", "100000");
    args.pair("-x264-params", "open-gop=0");
    args.pair(
        "-force_key_frames",
        format!("expr:gte(t,n_forced*{}-{:.6})", plan.boundaries.segment_seconds, picture.half_frame_seconds),
    );
    // The source's own clock: with FFmpeg's guess (1/frame rate) frames of variable rate would move.
    args.pair("-enc_time_base", picture.time_base.replace('/', ":"));
    // Every frame once at its own time; the default may repeat frames until the rate is constant.
    args.pair("-fps_mode", "vfr");
}

fn audio(args: &mut Arguments, track: &AudioRendition) {
    args.pair("-map", format!("0:{}", track.stream));
    args.pair("-c:a", "aac");
    args.pair("-b:a", format!("{}k", track.kbps));
    args.pair("-ac", "2");
    args.pair("-ar", track.sample_rate.to_string());
    // The encoder's priming frame lies before time 0, where fragments cannot say so without an edit
    // list, which players treat differently: leaving it out keeps audio exactly on time.
    args.pair("-bsf:a", "noise=drop='lt(pts,0)'");
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
mod tests {
    use super::*;
    use crate::{
        probe::{Audio, Media, Video},
        profile::Profile,
    };

    #[test]
    fn the_whole_command() {
        let media = Media {
            format: "mov".into(),
            duration_seconds: 11.4,
            video: Some(Video {
                index: 0,
                codec: "h264".into(),
                width: 1280,
                height: 720,
                pixel_aspect: 1.0,
                rotation: 0,
                frame_rate: 30.0,
                time_base: "1/15360".into(),
                pixel_format: "yuv420p".into(),
                interlaced: true,
                duration_seconds: 11.4,
            }),
            audio: vec![Audio {
                index: 1,
                codec: "aac".into(),
                channels: 2,
                sample_rate: 44_100,
                language: None,
                title: None,
                duration_seconds: 11.4,
            }],
            warnings: Vec::new(),
        };
        let plan = Plan::new(&media, &Profile::default());
        let input = ["-i".to_owned(), "file:in.mp4".to_owned()];
        let lines = arguments(&plan, &input, 3).join(" ").replace(" -map", "\n-map").replace(';', ";\n");
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn audio_alone_needs_no_graph() {
        let plan = Plan::new(
            &Media {
                format: "mov".into(),
                duration_seconds: 1.0,
                video: None,
                audio: vec![Audio {
                    index: 0,
                    codec: "aac".into(),
                    channels: 1,
                    sample_rate: 8000,
                    language: None,
                    title: None,
                    duration_seconds: 1.0,
                }],
                warnings: Vec::new(),
            },
            &Profile::default(),
        );
        assert_eq!(pipes(&plan), [Pipe::Progress, Pipe::Audio(0)]);
        assert!(!arguments(&plan, &[], 3).iter().any(|argument| argument == "-filter_complex"));
    }
}

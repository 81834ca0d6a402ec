use super::*;

/// Runs ffprobe for these entries. Returns one line per stream or packet. An empty selector selects all
/// streams.
fn probe(file: &Path, selector: &str, entries: &str) -> String {
    let arguments = ["-v", "error", "-select_streams", selector, "-show_entries", entries, "-of", "csv=p=0"];
    stdout("ffprobe", &[&arguments[..], &[file.to_str().unwrap()]].concat())
}

/// A frame in ffprobe's output, in the file's order.
#[derive(Debug, Clone, Copy)]
struct Packet {
    pts: i64,
    size: u64,
    key: bool,
}

fn packets(file: &Path, stream: usize) -> Vec<Packet> {
    probe(file, &stream.to_string(), "packet=pts,size,flags")
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            assert!(!fields[2].contains('D'), "{line}");
            Packet {
                pts: fields[0].parse().unwrap(),
                size: fields[1].parse().unwrap(),
                key: fields[2].starts_with('K'),
            }
        })
        .collect()
}

async fn copyable(file: &Path) -> CopyableVideo {
    video_of(&index(file).await.unwrap()).1.clone().unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

async fn why_not(file: &Path) -> String {
    video_of(&index(file).await.unwrap()).1.clone().unwrap_err().to_string()
}

fn assert_matches(name: &str, video: &CopyableVideo, packets: &[Packet]) {
    assert_eq!(video.samples as usize, packets.len(), "{name}");
    assert_eq!(video.bytes, packets.iter().map(|packet| packet.size).sum::<u64>(), "{name}");
    let last = packets.iter().max_by_key(|packet| packet.pts).unwrap();
    // FFmpeg estimates durations if frames are not stored in presentation order, so the end is not compared.
    assert!(video.end > last.pts, "{name}");
    let mut expected = Vec::new();
    for (at, packet) in packets.iter().enumerate().filter(|(_, packet)| packet.key) {
        let before = packets[..at].iter().map(|packet| packet.pts).max();
        let closed = before.is_none_or(|before| before < packet.pts)
            && packets[at + 1..].iter().all(|later| later.pts > packet.pts);
        if closed && at > 0 {
            let shown_before = packets.iter().map(|packet| packet.pts).filter(|pts| *pts < packet.pts).max();
            assert_eq!(before, shown_before, "{name}");
        }
        let bytes_before = packets[..at].iter().map(|packet| packet.size).sum::<u64>();
        expected.push((packet.pts, before.unwrap_or(packet.pts), closed, bytes_before));
    }
    let found: Vec<_> =
        video.keyframes.iter().map(|key| (key.at, key.before, key.closed, key.bytes_before)).collect();
    assert_eq!(found, expected, "{name}");
}

#[tokio::test]
async fn times_and_keyframes_match_ffprobe() {
    let folder = tempfile::tempdir().unwrap();
    let x264 = "-c:v libx264 -pix_fmt yuv420p";
    for (name, options) in [
        ("closed.mp4", "-preset ultrafast -bf 0 -g 50"),
        ("b_frames.mp4", "-preset fast -g 48"),
        ("b_frames_in_front.mp4", "-preset fast -g 48 -movflags +faststart"),
        ("negative_offsets.mp4", "-preset fast -g 48 -movflags +negative_cts_offsets"),
        ("no_edit_list.mp4", "-preset fast -g 48 -use_editlist 0"),
        ("quicktime.mov", "-preset fast -g 48"),
        ("all_keyframes.mp4", "-preset fast -g 1"),
        // An edit list of FFmpeg 7 would leave out the last frame.
        (
            "variable.mp4",
            "-preset fast -g 40 -vf setpts=PTS+0.01*mod(N\\,3)/TB -fps_mode vfr -use_editlist 0",
        ),
        ("late.mp4", "-preset fast -g 40 -output_ts_offset 1.5"),
        ("one_frame.mp4", "-preset fast -frames:v 1"),
        ("coarse_clock.mp4", "-preset fast -video_track_timescale 25"),
    ] {
        let file = clip(&folder, name, &format!("{SOURCE} {x264} {options}"));
        let video = copyable(&file).await;
        assert!(video.closed().count() >= video.keyframes.len().min(2), "{name}");
        assert_matches(name, &video, &packets(&file, 0));
    }
}

#[tokio::test]
async fn audio_does_not_shift_video_times() {
    let folder = tempfile::tempdir().unwrap();
    let video_file = clip(&folder, "video.mp4", &format!("{SOURCE} -c:v libx264 -preset fast -g 30"));
    let audio_file = clip(&folder, "audio.mp4", "-f lavfi -i sine=sample_rate=48000:duration=5 -c:a aac");
    let (video, audio) = (video_file.display(), audio_file.display());
    for (name, inputs, video_start, primed_samples) in [
        ("both.mp4", format!("-i {audio} -i {video}"), 0.0, 1024),
        ("video_late.mp4", format!("-i {audio} -itsoffset 0.5 -i {video}"), 0.5, 1024),
        // This file presents its priming samples.
        ("audio_late.mp4", format!("-itsoffset 0.5 -i {audio} -i {video}"), 0.0, 0),
    ] {
        let file = clip(&folder, name, &format!("{inputs} -map 0 -map 1 -c copy"));
        let index = index(&file).await.unwrap();
        let (at, video) = video_of(&index);
        let video = video.as_ref().unwrap();
        assert_matches(name, video, &packets(&file, at));
        assert!((video.seconds(video.start()) - video_start).abs() < 1e-3, "{name}: {video:?}");
        let Content::Audio(Ok(audio)) = &index.track(1).unwrap().content else { panic!("{index:?}") };
        assert_eq!((audio.channels, audio.sample_rate), (1, 48_000), "{name}");
        assert_eq!(audio.primed_samples, primed_samples, "{name}");
        let seconds = |entry| probe(&file, "a", entry).trim().parse::<f64>().unwrap();
        let start = seconds("stream=start_time");
        assert!((audio.start_seconds - start).abs() < 1e-3, "{name}: {audio:?}");
        let end = start + seconds("stream=duration");
        assert!((audio.end_seconds - end).abs() < 1e-3, "{name}: {end} {audio:?}");
    }
}

#[tokio::test]
async fn keyframes_of_open_gops_are_not_boundaries() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset fast -g 24 -keyint_min 24 -sc_threshold 0";
    let open =
        clip(&folder, "open.mp4", &format!("{SOURCE} {options} -x264-params open-gop=1:b-adapt=0:bframes=3"));
    let packets = packets(&open, 0);
    assert!(packets.iter().filter(|packet| packet.key).count() > 2, "{packets:?}");
    let video = copyable(&open).await;
    assert_matches("open.mp4", &video, &packets);
    assert_eq!(video.closed().count(), 1, "{video:?}");
    assert_eq!(video.keyframe_times().count(), 1);
}

#[tokio::test]
async fn keyframes_without_refresh_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset fast -bf 0 -g 25 -x264-params intra-refresh=1";
    let file = clip(&folder, "refresh.mp4", &format!("{SOURCE} {options}"));
    let packets = packets(&file, 0);
    assert!(packets.iter().filter(|packet| packet.key).count() > 1, "{packets:?}");
    assert_eq!(why_not(&file).await, "its keyframes depend on earlier frames");
}

/// Two recordings, joined so that the parameter sets of the second one are only in its frames.
fn joined(folder: &tempfile::TempDir, first: &str, second: &str) -> PathBuf {
    let encode = "-c:v libx264 -preset ultrafast -bf 0 -g 25 -pix_fmt yuv420p";
    let parts = [("first.ts", first), ("second.ts", second)].map(|(name, part)| {
        let source = "-f lavfi -i testsrc2=rate=25:duration=2";
        clip(folder, name, &format!("{} {encode}", part.replace("SOURCE", source))).display().to_string()
    });
    clip(folder, "joined.mp4", &format!("-i concat:{} -c copy", parts.join("|")))
}

#[tokio::test]
async fn frames_that_change_later_are_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let small = "SOURCE -vf scale=160:90";
    let same = joined(&folder, small, small);
    copyable(&same).await;
    let turn = "-c copy -bsf:v h264_metadata=display_orientation=insert:rotate=90";
    let turned = clip(&folder, "turned.mp4", &format!("-i {} {turn}", same.display()));
    assert_eq!(why_not(&turned).await, "it is turned by messages in its frames");
    let larger = joined(&folder, small, "SOURCE");
    assert_eq!(why_not(&larger).await, "it changes its parameter sets");
    let interlaced = joined(&folder, small, "SOURCE -vf scale=160:96 -flags +ildct+ilme");
    assert_eq!(why_not(&interlaced).await, "it changes its parameter sets");
    let fields = joined(&folder, "SOURCE -x264-params fake-interlaced=1", small);
    assert_eq!(why_not(&fields).await, "its frames may consist of two fields");
}

#[tokio::test]
async fn tracks_cut_by_edit_lists_are_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset fast -g 50";
    let whole = clip(&folder, "whole.mp4", &format!("{SOURCE} {options}"));
    let whole = whole.to_str().unwrap();
    let cut = clip(&folder, "cut.mp4", &format!("-ss 1 -i {whole} -c copy"));
    assert_eq!(why_not(&cut).await, "its edit list leaves out frames at the start");
    let at_keyframe = clip(&folder, "at_keyframe.mp4", &format!("-ss 2 -i {whole} -c copy"));
    let video = copyable(&at_keyframe).await;
    assert_matches("at_keyframe.mp4", &video, &packets(&at_keyframe, 0));
}

#[tokio::test]
async fn other_files_have_a_reason_not_to_copy() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options, expected) in [
        ("high10.mp4", "-c:v libx264 -preset fast -pix_fmt yuv420p10le", "its H.264 profile is 110"),
        ("high422.mp4", "-c:v libx264 -preset fast -pix_fmt yuv422p", "its H.264 profile is 122"),
        ("mpeg4.mp4", "-c:v mpeg4", "it is mp4v and not avc1"),
        ("frag.mp4", "-c:v libx264 -movflags +frag_keyframe+empty_moov", "the file is fragmented"),
    ] {
        let file = clip(&folder, name, &format!("{SOURCE} {options}"));
        assert_eq!(why_not(&file).await, expected, "{name}");
    }
    let key = "00112233445566778899aabbccddeeff";
    let encrypted = clip(
        &folder,
        "encrypted.mp4",
        &format!(
            "{SOURCE} -c:v libx264 -encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}"
        ),
    );
    let index_of_encrypted = index(&encrypted).await.unwrap();
    assert!(index_of_encrypted.tracks[0].encrypted);
    assert_eq!(why_not(&encrypted).await, "it is encrypted");

    let matroska = clip(&folder, "matroska.mkv", &format!("{SOURCE} -c:v libx264"));
    assert_eq!(index(&matroska).await, None);
    assert_eq!(index(&folder.path().join("missing.mp4")).await, None);
    let whole = clip(&folder, "whole.mp4", &format!("{SOURCE} -c:v libx264 -movflags +faststart"));
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&whole, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(why_not(&whole).await, "the file ends before its samples do");
}

/// The id and start in seconds of each stream.
fn streams(file: &Path) -> Vec<(u32, f64)> {
    let output = probe(file, "", "stream=id,start_time");
    let lines = output.lines().map(|line| line.trim_end_matches(',').split_once(','));
    lines
        .flatten()
        .map(|(id, start)| {
            let id = id.strip_prefix("0x").map_or(0, |id| u32::from_str_radix(id, 16).unwrap());
            (id, start.parse().unwrap_or(0.0))
        })
        .collect()
}

/// All files of the corpus, if it is there.
fn corpus() -> Option<Vec<PathBuf>> {
    let files = std::fs::read_dir(crate::fixtures::corpus()).ok()?.map(|entry| entry.unwrap().path());
    Some(files.filter(|file| file.extension().is_some_and(|ext| ext != "tsv" && ext != "md")).collect())
}

#[tokio::test]
async fn copyable_tracks_of_the_corpus_match_ffprobe() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        corpus().unwrap_or_else(|| vec![clip(&folder, "clip.mp4", &format!("{SOURCE} -c:v libx264"))]);
    let mut checked = 0;
    for file in files {
        let Some(index) = index(&file).await else { continue };
        let ids = index.tracks.iter().map(|track| track.id).collect::<Vec<_>>();
        let streams: Vec<_> = streams(&file).into_iter().filter(|(id, _)| *id != 0).collect();
        assert_eq!(ids, streams.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{}", file.display());
        for (at, track) in index.tracks.iter().enumerate() {
            let start = match &track.content {
                Content::Video(Ok(video)) => {
                    assert_matches(&file.display().to_string(), video, &packets(&file, at));
                    video.seconds(video.start())
                }
                Content::Audio(Ok(audio)) => audio.start_seconds,
                _ => continue,
            };
            assert!((start - streams[at].1).abs() < 1e-3, "{}: {start} {}", file.display(), streams[at].1);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

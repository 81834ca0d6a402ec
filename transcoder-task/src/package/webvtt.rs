//! Subtitles: FFmpeg writes a track as WebVTT (or ASS, if it is that) to a pipe; this module escapes it and
//! splits it into segments for HLS.
//!
//! The parser is written by hand, because FFmpeg's muxer does not write valid WebVTT. It leaves `&`, `<`,
//! `-->` and blank lines of the upload in a cue's text, which a parser of valid WebVTT would treat as markup
//! or as the end of the cue.

use std::fmt::Write;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::ass;

/// Most bytes of a track. A film has about 100 kB; this is a day of dialogue.
const MAX_BYTES: u64 = 4 << 20;
/// Most bytes of a cue: more than fits on a screen.
const MAX_CUE_BYTES: usize = 2000;
/// Most cues on screen at once. A cue is repeated in every segment that it overlaps, so these three limits
/// bound the published bytes.
const MAX_CONCURRENT_CUES: usize = 32;
/// Shortest segment except the last. Subtitles are small, so requests cost more than bytes. A final (VOD)
/// playlist of subtitles may have its own target duration (RFC 8216, 6.2.4).
const SEGMENT_SECONDS: f64 = 30.0;
/// Markup that FFmpeg writes for styles. All other markup is text.
const TAGS: [&str; 6] = ["<b>", "</b>", "<i>", "</i>", "<u>", "</u>"];

/// A text with its times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cue {
    start: u64,
    end: u64,
    /// WebVTT cue text without blank lines, and without markup other than FFmpeg's.
    text: String,
}

/// All cues of one subtitle track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextTrack {
    /// In order of start times.
    cues: Vec<Cue>,
    /// True if text was dropped because of a limit.
    pub(crate) truncated: bool,
}

/// The format of FFmpeg's output for a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    WebVtt,
    /// ASS or SSA, as it is in the source.
    Ass,
}

/// An HLS segment of a track.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SubtitleSegment {
    pub(crate) start_seconds: f64,
    pub(crate) duration_seconds: f64,
    /// A WebVTT file, whose times count from the beginning of the video.
    pub(crate) text: String,
}

impl TextTrack {
    /// Reads FFmpeg's text to the end of the pipe.
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub(crate) async fn read(mut pipe: impl AsyncRead + Unpin, script: Script) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        (&mut pipe).take(MAX_BYTES).read_to_end(&mut bytes).await?;
        // The rest must be read too, or FFmpeg would block.
        let rest = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
        let text = String::from_utf8_lossy(&bytes);
        let mut track = match script {
            Script::WebVtt => Self::parse(&text),
            Script::Ass => Self::parse_ass(&text),
        };
        track.truncated |= rest > 0;
        Ok(track)
    }

    fn parse(webvtt: &str) -> Self {
        let mut cues: Vec<Cue> = Vec::new();
        let mut truncated = false;
        let mut after_blank = true;
        for line in webvtt.lines() {
            // Some players treat control characters as line ends.
            let line: String = line.chars().filter(|character| !character.is_control()).collect();
            let line = line.trim_end();
            if line.is_empty() {
                after_blank = true;
            } else if let Some((start, end)) = after_blank.then(|| timing(line)).flatten() {
                cues.push(Cue { start, end, text: String::new() });
                after_blank = false;
            } else if let Some(cue) = cues.last_mut() {
                // A line after a blank line also belongs to the cue, because the blank line was part of the
                // text.
                if cue.text.len() + line.len() <= MAX_CUE_BYTES {
                    cue.text.extend((!cue.text.is_empty()).then_some('\n'));
                    cue.text += line;
                } else {
                    truncated = true;
                }
                after_blank = false;
            }
        }
        Self::of_cues(cues, truncated)
    }

    fn parse_ass(script: &str) -> Self {
        let mut truncated = false;
        let cues = ass::dialogue(script).map(|(start, end, text)| {
            let safe = |character: &char| *character == '\n' || !character.is_control();
            let mut text: String = text.chars().filter(safe).collect();
            truncated |= text.len() > MAX_CUE_BYTES;
            text.truncate(text.floor_char_boundary(MAX_CUE_BYTES));
            Cue { start, end, text }
        });
        let cues = cues.collect();
        Self::of_cues(cues, truncated)
    }

    fn of_cues(mut cues: Vec<Cue>, mut truncated: bool) -> Self {
        cues.retain(|cue| cue.start < cue.end && !cue.text.trim().is_empty());
        cues.sort_by_key(|cue| cue.start);
        let mut ends: Vec<u64> = Vec::new();
        cues.retain_mut(|cue| {
            ends.retain(|end| *end > cue.start);
            let fits = ends.len() < MAX_CONCURRENT_CUES;
            if fits {
                ends.push(cue.end);
                cue.text = escaped(&cue.text);
            }
            truncated |= !fits;
            fits
        });
        Self { cues, truncated }
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.cues.is_empty()
    }

    /// The whole track as one WebVTT file, for DASH.
    #[must_use]
    pub(crate) fn whole(&self) -> String {
        file("", &self.cues)
    }

    /// The track's HLS segments. They begin at some of the `boundaries`, the start times of video segments in
    /// seconds, and end at `end_seconds`. A cue is in every segment that it overlaps.
    pub(crate) fn segments(
        &self,
        boundaries: &[f64],
        end_seconds: f64,
    ) -> impl Iterator<Item = SubtitleSegment> {
        let mut starts = vec![0.0];
        for boundary in boundaries.iter().copied().filter(|boundary| *boundary < end_seconds) {
            // A boundary may be one frame early.
            if starts.last().is_some_and(|start| boundary - start > SEGMENT_SECONDS - 0.5) {
                starts.push(boundary);
            }
        }
        let ends: Vec<f64> = starts.iter().skip(1).copied().chain([end_seconds]).collect();
        starts.into_iter().zip(ends).map(|(start, end)| {
            let (from, to) = (milliseconds(start), milliseconds(end));
            let before = self.cues.partition_point(|cue| cue.start < to);
            let cues = self.cues[..before].iter().filter(|cue| cue.end > from);
            SubtitleSegment {
                start_seconds: start,
                duration_seconds: (end - start).max(0.0),
                // Cue times are the media's own times, which begin at 0 in every rendition.
                text: file("X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n", cues),
            }
        })
    }
}

fn file<'a>(header: &str, cues: impl IntoIterator<Item = &'a Cue>) -> String {
    let mut text = format!("WEBVTT\n{header}");
    for Cue { start, end, text: shown } in cues {
        // Writing to memory cannot fail.
        let _ = write!(text, "\n{} --> {}\n{shown}\n", stamp(*start), stamp(*end));
    }
    text
}

/// Parses a cue's times: `00:01.000 --> 01:00:02.000`, with optional settings after them.
fn timing(line: &str) -> Option<(u64, u64)> {
    let (start, rest) = line.split_once(" --> ")?;
    Some((instant(start)?, instant(rest.split(' ').next()?)?))
}

fn instant(text: &str) -> Option<u64> {
    let (clock, fraction) = text.split_once('.')?;
    let number = |digits: &str| -> Option<u64> {
        // `parse` would accept a sign.
        ((1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    };
    let seconds = clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + number(part)?))?;
    ((2..=3).contains(&clock.split(':').count()) && fraction.len() == 3)
        .then(|| Some(seconds * 1000 + number(fraction)?))
        .flatten()
}

/// Escapes text for a WebVTT cue.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    // FFmpeg leaves the hard space of ASS subtitles (`\h`) in the text.
    let text = text.replace("\\h", "\u{a0}");
    let mut rest = text.as_str();
    while let Some(character) = rest.chars().next() {
        if let Some(tag) = TAGS.iter().find(|tag| rest.starts_with(**tag)) {
            safe += tag;
            rest = &rest[tag.len()..];
            continue;
        }
        match character {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            other => safe.push(other),
        }
        rest = &rest[character.len_utf8()..];
    }
    safe
}

/// A WebVTT timestamp: `00:01:02.345`.
#[must_use]
pub(crate) fn timestamp(seconds: f64) -> String {
    stamp(milliseconds(seconds))
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round() as u64
}

fn stamp(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, milliseconds % 1000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn cues(track: &TextTrack) -> Vec<(u64, u64, &str)> {
        track.cues.iter().map(|cue| (cue.start, cue.end, cue.text.as_str())).collect()
    }

    #[test]
    fn cues_with_short_and_long_timestamps() {
        let track = TextTrack::parse(
            "WEBVTT\n\n00:00.500 --> 00:02.000\nFirst line, with <i>markup</i>\n\n\
             01:00:02.500 --> 123:00:05.000 align:start\nZweite Zeile: äöü 你好\nnext line\n",
        );
        assert_eq!(
            cues(&track),
            [
                (500, 2000, "First line, with <i>markup</i>"),
                (3_602_500, 442_805_000, "Zweite Zeile: äöü 你好\nnext line"),
            ]
        );
        assert!(!track.truncated);
    }

    #[test]
    fn text_is_escaped() {
        let track = TextTrack::parse(
            "WEBVTT\n\n00:01.000 --> 00:02.000\na <script>x</script> & b\\h< c --> d\n\n\
             two --> three\n\n\n1:2 --> 3:4\n<b>bold\u{0}</b></i>\r\n\n00:03.000 --> 00:03.000\nnever\n\n\
             00:04.000 --> 00:05.000\n\n",
        );
        assert_eq!(
            cues(&track),
            [(
                1000,
                2000,
                "a &lt;script&gt;x&lt;/script&gt; &amp; b\u{a0}&lt; c --&gt; d\ntwo --&gt; three\n\
                 1:2 --&gt; 3:4\n<b>bold</b></i>"
            )]
        );
        for nothing in ["", "WEBVTT\n", "text\n\nmore", "00:-1.000 --> 00:02.000\nx", "é:é.éé --> x"] {
            assert!(TextTrack::parse(nothing).is_empty(), "{nothing}");
        }
    }

    #[tokio::test]
    async fn limits_bound_the_text_of_an_upload() {
        let cue = |text: &str| format!("\n00:00:00.000 --> 10:00:00.000\n{text}\n");
        let track = TextTrack::parse(&cue("x").repeat(1000));
        assert_eq!((track.cues.len(), track.truncated), (MAX_CONCURRENT_CUES, true));
        let track = TextTrack::parse(&cue(&"long line\n".repeat(1000)));
        assert!(track.cues[0].text.len() <= MAX_CUE_BYTES && track.truncated);
        let endless = cue("x").repeat(200_000);
        assert!(endless.len() as u64 > MAX_BYTES);
        let mut rest = endless.as_bytes();
        assert!(TextTrack::read(&mut rest, Script::WebVtt).await.unwrap().truncated);
        assert!(rest.is_empty(), "the pipe must be read to its end");
    }

    #[test]
    fn segments_begin_at_video_segments() {
        let track = TextTrack::parse(
            "\n00:30.000 --> 00:32.000\nup to it\n\n00:31.000 --> 00:33.000\nover the boundary\n\n00:40.000 --> 00:41.000\nb\n",
        );
        let boundaries: Vec<f64> = (0..20).map(|number| f64::from(number) * 4.0).collect();
        let segments: Vec<_> = track.segments(&boundaries, 77.5).collect();
        let spans: Vec<_> = segments.iter().map(|part| (part.start_seconds, part.duration_seconds)).collect();
        assert_eq!(spans, [(0.0, 32.0), (32.0, 32.0), (64.0, 13.5)]);
        assert_eq!(
            segments[1].text,
            "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n\
             00:00:31.000 --> 00:00:33.000\nover the boundary\n\n00:00:40.000 --> 00:00:41.000\nb\n"
        );
        assert!(segments[0].text.contains("over") && !segments[0].text.contains("\nb\n"));
        assert_eq!(segments[2].text, "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n");
        assert_eq!(track.whole().matches(" --> ").count(), 3);
        assert_eq!(track.segments(&[], 3.0).count(), 1);
    }

    #[test]
    fn six_second_boundaries_that_are_a_frame_early_make_segments_of_thirty_seconds() {
        let boundaries: Vec<f64> = (0..20).map(|number| f64::from(number) * 6.0 - 0.02).collect();
        let spans: Vec<_> = TextTrack::parse("")
            .segments(&boundaries, 70.0)
            .map(|part| part.duration_seconds.round())
            .collect();
        assert_eq!(spans, [30.0, 30.0, 10.0]);
    }

    proptest! {
        #[test]
        fn a_cue_is_in_every_segment_that_it_overlaps(
            cues in prop::collection::vec((0_u64..200_000, 1_u64..90_000), 0..20), step in 1.0_f64..11.0,
        ) {
            let text: String = cues
                .iter()
                .enumerate()
                .map(|(number, (start, length))| {
                    format!("\n{} --> {}\n#{number}#\n", stamp(*start), stamp(start + length))
                })
                .collect();
            let track = TextTrack::parse(&text);
            prop_assert_eq!(track.cues.len(), cues.len());
            let boundaries: Vec<f64> = (0..300).map(|number| f64::from(number) * step).collect();
            let mut at = 0.0;
            for segment in track.segments(&boundaries, 250.0) {
                prop_assert_eq!(segment.start_seconds, at);
                at += segment.duration_seconds;
                let (from, to) = (milliseconds(segment.start_seconds), milliseconds(at));
                for (number, (start, length)) in cues.iter().enumerate() {
                    let shown = *start < to && start + length > from;
                    prop_assert_eq!(segment.text.contains(&format!("#{number}#")), shown);
                }
            }
            prop_assert!((at - 250.0).abs() < 1e-6);
        }

        #[test]
        fn no_text_can_break_out_of_its_cue(text in "(?s)(.|\n|<|>|&|-->|<b>|\\\\h|00:01.000 --> 00:02.000){0,40}") {
            let track = TextTrack::parse(&format!("WEBVTT\n\n00:00.000 --> 00:09.000\n{text}\n"));
            for line in track.cues.iter().flat_map(|cue| cue.text.lines()) {
                prop_assert!(!line.is_empty() && !line.contains("-->"));
                let without_tags = TAGS.iter().fold(line.to_owned(), |line, tag| line.replace(tag, ""));
                prop_assert!(!without_tags.contains(['<', '>']));
            }
        }
    }

    #[tokio::test]
    async fn ffmpegs_ass_is_parsed() {
        let script = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n\
             Format: Name, Fontname, Fontsize, Bold, Italic, Underline\nStyle: Default,Arial,20,0,0,0\n\n\
             [Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n\
             Dialogue: 0,0:00:01.00,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0 100 100 0 100{\\p0}\n\
             Dialogue: 0,0:00:00.50,0:00:02.00,Default,,0,0,0,,Plain & {\\i1}line{\\i0}\\Nnext <one>\n";
        let arguments = ["-loglevel", "error", "-f", "ass", "-i", "pipe:0", "-c:s", "copy", "-f", "ass"];
        let arguments = arguments.into_iter().chain(["-ignore_readorder", "1", "pipe:1"]);
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        let input = [Bytes::from(script)];
        let output = crate::process::convert(&arguments, &input, Duration::from_secs(30)).await.unwrap();
        let track = TextTrack::read(&output[..], Script::Ass).await.unwrap();
        assert_eq!(cues(&track), [(500, 2000, "Plain &amp; <i>line</i>\nnext &lt;one&gt;")]);
    }

    #[tokio::test]
    async fn ffmpegs_webvtt_is_parsed() {
        let srt = "1\n00:00:20,000 --> 00:00:22,500\nlate <i>text</i> & {\\an8}more\n\n\
                   2\n01:00:21,000 --> 01:00:40,000\nline\nline\n\n";
        let arguments =
            ["-loglevel", "error", "-f", "srt", "-i", "pipe:0", "-c:s", "webvtt", "-f", "webvtt", "pipe:1"];
        let (arguments, input) = (arguments.map(str::to_owned), [Bytes::from(srt)]);
        let output = crate::process::convert(&arguments, &input, Duration::from_secs(30)).await.unwrap();
        let track = TextTrack::read(&output[..], Script::WebVtt).await.unwrap();
        assert_eq!(
            cues(&track),
            [(20_000, 22_500, "late <i>text</i> &amp; more"), (3_621_000, 3_640_000, "line\nline")]
        );
    }
}

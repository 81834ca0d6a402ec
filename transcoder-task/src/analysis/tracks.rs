//! Builds the model of a source from ffprobe's output. Chooses tracks, and leaves out those that cannot be
//! decoded.

use super::{
    choice::{film, join_mono_pairs},
    extents::Claim,
    ffprobe_json::{ChapterMark, MetadataTags, ProbeOutput, Stream, ratio},
    language_code::canonical,
    limits::{
        HIGHEST_FRAME_RATE, LONGEST_SIDE, LONGEST_TITLE, MOST_CHANNELS, MOST_CHAPTERS, MOST_FAST_FRAMES,
        MOST_MIXED_CHANNELS, MOST_PIXELS, MOST_TRACKS, SAMPLE_RATES,
    },
    media::{Audio, Chapter, ColourDescription, Downmix, Media, Subtitle, Video},
    orientation::DisplayMatrix,
    rejection::{ENCRYPTED, ProbeError, oversize, unusable},
};

pub(super) fn media(output: ProbeOutput) -> Result<Media, ProbeError> {
    let of_type = |kind: &'static str| {
        output.streams.iter().filter(move |stream| stream.codec_type.as_deref() == Some(kind))
    };
    let pictures: Vec<_> = of_type("video")
        .filter(|Stream { disposition, .. }| {
            !disposition.attached_pic && !disposition.timed_thumbnails && !disposition.still_image
        })
        .collect();
    // Attachments (fonts, cover art) and data are no tracks that viewers could choose.
    let tracks = pictures.len() + of_type("audio").count() + of_type("subtitle").count();
    if tracks > MOST_TRACKS {
        return Err(unusable(format!("the file has {tracks} tracks; the limit is {MOST_TRACKS}")));
    }
    if encrypted(&output) {
        return Err(unusable(ENCRYPTED));
    }
    let start_seconds = number(output.format.start_time.as_deref());
    let duration_seconds = seconds(output.format.duration.as_deref());
    let mut warnings = Vec::new();

    let readable = |stream: &&Stream| codec(stream).is_some() && stream.width > 0 && stream.height > 0;
    let readable: Vec<_> = pictures.iter().copied().filter(readable).collect();
    let video = match (film(&readable), pictures.first()) {
        (Some(stream), _) => Some(video(stream, start_seconds)?),
        (None, Some(stream)) if codec(stream).is_none() => {
            return Err(unusable(format!("the video is {}", unreadable(stream))));
        }
        (None, Some(_)) => {
            return Err(unusable("the file is damaged: the size of its video is missing"));
        }
        (None, None) => None,
    };
    // Beside an ordinary track, phones store tracks in their own formats (spatial audio).
    let mut audio = Vec::new();
    for stream in of_type("audio") {
        match check_audio(stream) {
            Ok(()) => {
                let track = self::audio(stream, start_seconds);
                if track.downmix == Downmix::FirstTwo {
                    warnings.push(format!(
                        "audio track {} has {} channels that cannot be mixed: the first two were published",
                        stream.index, stream.channels
                    ));
                }
                audio.push(track);
            }
            Err(reason) => {
                warnings.push(format!("audio track {} is {reason} and was left out", stream.index))
            }
        }
    }
    if video.is_none() && audio.is_empty() {
        return Err(unusable(match of_type("audio").next().map(check_audio) {
            Some(Err(reason)) => format!("the audio is {reason}"),
            _ => "the file has no video or audio that can be played".into(),
        }));
    }
    join_mono_pairs(&mut audio);
    let mut subtitles = Vec::new();
    for stream in of_type("subtitle") {
        match check_subtitles(stream) {
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
    if output.chapters.len() > MOST_CHAPTERS {
        warnings.push(format!(
            "the file has {} chapters: those after the {MOST_CHAPTERS}th were left out",
            output.chapters.len()
        ));
    }
    let chapters =
        output.chapters.iter().filter_map(|mark| chapter(mark, start_seconds)).take(MOST_CHAPTERS).collect();
    Ok(Media {
        format: output.format.format_name,
        duration_seconds,
        start_seconds,
        video,
        audio,
        subtitles,
        chapters,
        warnings,
        claims: output.streams.iter().filter_map(claim).collect(),
    })
}

/// Returns true if the first packets have decryption data. (Keys for the whole file remain in decrypted
/// files, too.)
fn encrypted(output: &ProbeOutput) -> bool {
    let mut data = output.packets.iter().flat_map(|packet| &packet.side_data_list);
    data.any(|data| data.side_data_type == "Encryption info")
}

/// The codec's name, if this FFmpeg decodes it.
fn codec(stream: &Stream) -> Option<&str> {
    // FFmpeg 5 cannot decode VVC. FFmpeg 7 uses the first packet's time as the start and loses earlier
    // frames.
    stream.codec_name.as_deref().filter(|name| !matches!(*name, "unknown" | "none" | "vvc"))
}

/// The reason why a track cannot be decoded, worded to follow "is".
fn unreadable(stream: &Stream) -> String {
    let name = stream.codec_tag_string.as_deref().or(stream.codec_name.as_deref()).unwrap_or_default().trim();
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -_.".contains(&byte)) {
        format!("in a format ({name}) that this service cannot read")
    } else {
        "in a format that this service cannot read".into()
    }
}

/// Checks that an audio track can be transcoded.
///
/// # Errors
/// The reason why it cannot, worded to follow "is".
fn check_audio(stream: &Stream) -> Result<(), String> {
    if codec(stream).is_none() || stream.channels == 0 {
        Err(unreadable(stream))
    } else if stream.channels > MOST_CHANNELS {
        Err(format!("declared with {} channels (the limit is {MOST_CHANNELS})", stream.channels))
    } else if !SAMPLE_RATES.contains(&sample_rate(stream)) {
        Err(format!("declared with an impossible sample rate of {} Hz", sample_rate(stream)))
    } else {
        Ok(())
    }
}

/// Checks that a subtitle track is text. (FFmpeg itself removes the text track of QuickTime's chapters.)
///
/// # Errors
/// The reason why it cannot be used, worded to follow "is".
fn check_subtitles(stream: &Stream) -> Result<(), String> {
    match codec(stream) {
        Some("mov_text" | "subrip" | "ass" | "ssa" | "webvtt" | "text") => Ok(()),
        Some("dvd_subtitle" | "hdmv_pgs_subtitle" | "dvb_subtitle" | "xsub") => {
            Err("in a picture format instead of text".into())
        }
        _ => Err(unreadable(stream)),
    }
}

/// Duration of a track in seconds by its header; 0 if unknown. The file's duration cannot replace it, because
/// it is that of the longest track.
fn duration(stream: &Stream) -> f64 {
    match tagged_end(stream) {
        // FFmpeg states the file's duration for a track that begins late.
        Some(end) => (end - number(stream.start_time.as_deref())).max(0.0),
        None => seconds(stream.duration.as_deref()),
    }
}

/// Matroska's duration tag in seconds. It is the end of the track.
fn tagged_end(stream: &Stream) -> Option<f64> {
    let mut parts = stream.tags.duration.as_deref()?.splitn(3, ':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(hours * 3600.0 + minutes * 60.0 + seconds).filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

fn claim(stream: &Stream) -> Option<Claim> {
    Some(Claim { header: format!("duration tag of track {}", stream.index), seconds: tagged_end(stream)? })
}

fn video(stream: &Stream, start_seconds: f64) -> Result<Video, ProbeError> {
    let pixels = u64::from(stream.width) * u64::from(stream.height);
    if stream.width.max(stream.height) > LONGEST_SIDE || pixels > MOST_PIXELS {
        return Err(oversize(stream.width, stream.height));
    }
    let frames = stream.nb_frames.as_deref().and_then(|count| count.parse().ok());
    if let Some(frames) = frames.filter(|frames| *frames > MOST_FAST_FRAMES) {
        let seconds = duration(stream);
        if frames as f64 > seconds * HIGHEST_FRAME_RATE {
            return Err(unusable(format!(
                "the video claims to have {frames} pictures in {seconds:.1} seconds"
            )));
        }
    }
    let colour = colour(stream);
    // Neither FFmpeg's scaler nor this program converts these matrices, and FFmpeg 7 fails. (Profile 5 of
    // Dolby Vision is read without regard to the tag.)
    let unknown =
        ["ictcp", "smpte2085", "chroma-derived-nc", "chroma-derived-c", "ipt-c2", "ycgco-re", "ycgco-ro"];
    if let Some(space) = colour.space.as_deref().filter(|space| unknown.contains(space))
        && !matches!(colour.dolby_vision, Some((5, _) | (10, 0)))
    {
        return Err(unusable(format!(
            "the video's colours are coded as {space}, which this service cannot convert"
        )));
    }
    // FFmpeg's own decoders of VP8 and VP9 ignore the alpha channel.
    let decoder = match (codec(stream), stream.tags.alpha_mode.as_deref()) {
        (Some("vp8"), Some("1")) => Some("libvpx"),
        (Some("vp9"), Some("1")) => Some("libvpx-vp9"),
        _ => None,
    };
    let pixel_format = match (decoder, &stream.pix_fmt) {
        (Some(_), _) => "yuva420p".to_owned(),
        (None, format) => format.clone().unwrap_or_default(),
    };
    let matrix = stream.side_data_list.iter().find_map(|data| data.displaymatrix.as_deref());
    let matrix = matrix.and_then(DisplayMatrix::parse);
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
        orientation: matrix.map(DisplayMatrix::orientation).unwrap_or_default(),
        transformed: matrix.is_some_and(|matrix| !matrix.is_identity()),
        frame_rate: ratio(stream.avg_frame_rate.as_deref(), '/').unwrap_or(0.0),
        base_frame_rate: ratio(stream.r_frame_rate.as_deref(), '/').unwrap_or(0.0),
        frames,
        time_base: stream
            .time_base
            .clone()
            .filter(|text| ratio(Some(text), '/').is_some())
            .unwrap_or_else(|| "1/90000".into()),
        decoder,
        bits: bits(&pixel_format),
        pixel_format,
        colour,
        reordered: stream.has_b_frames > 0,
        changes: false,
        interlaced: has_fields(codec(stream).unwrap_or_default())
            || !matches!(stream.field_order.as_deref(), None | Some("progressive" | "unknown")),
        bit_rate: bit_rate(stream),
        start_seconds: number(stream.start_time.as_deref()) - start_seconds,
        duration_seconds: duration(stream),
    })
}

/// Returns true if any frame of this codec may consist of two fields, whatever the header says. The decoders
/// of these codecs mark such frames. H.264 is not among them: see [`super::frames`].
fn has_fields(codec: &str) -> bool {
    matches!(
        codec,
        "mpeg2video"
            | "dvvideo"
            | "mpeg4"
            | "vc1"
            | "wmv3"
            | "prores"
            | "dnxhd"
            | "mjpeg"
            | "mjpegb"
            | "cfhd"
    )
}

fn colour(stream: &Stream) -> ColourDescription {
    let content = stream.side_data_list.iter().find_map(|data| data.max_content).map(f64::from);
    let mastering = stream.side_data_list.iter().find_map(|data| ratio(data.max_luminance.as_deref(), '/'));
    ColourDescription {
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

/// Bits per sample: the number at the end of FFmpeg's name (`yuv420p10le`), if the name has a byte order.
fn bits(pixel_format: &str) -> u32 {
    let Some(name) = pixel_format.strip_suffix("le").or_else(|| pixel_format.strip_suffix("be")) else {
        return 8;
    };
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    match name.get(digits..).and_then(|digits| digits.parse::<u32>().ok()) {
        Some(bits @ 9..=16) => bits,
        // rgb48, rgba64.
        Some(48 | 64) => 16,
        // y210: 4:2:2 with 10 bits.
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
        right: None,
        downmix: downmix(stream.channels, stream.channel_layout.as_deref()),
        start_seconds: number(stream.start_time.as_deref()) - start_seconds,
        duration_seconds: duration(stream),
        is_measured: false,
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
    canonical(stream.tags.language.as_deref()?)
}

/// The way to stereo for a layout by FFmpeg's name, or for a number of channels without a layout.
fn downmix(channels: u32, layout: Option<&str>) -> Downmix {
    // A layout without a name of its own: `3 channels (FL+FC+LFE)`. FFmpeg mixes it if its pairs are
    // complete.
    let speakers = layout.and_then(|layout| layout.split_once(" channels (")?.1.strip_suffix(')'));
    match (channels, layout, speakers) {
        (..=1, _, _) => Downmix::Standard,
        (channels, _, _) if channels > MOST_MIXED_CHANNELS => Downmix::FirstTwo,
        (_, Some(layout), None) if layout.starts_with("ambisonic") || layout.ends_with(" channels") => {
            Downmix::FirstTwo
        }
        (3, None, None) => Downmix::FrontThree,
        (_, _, Some(speakers)) => {
            let speakers: Vec<_> = speakers.split('+').collect();
            match mixable(&speakers) {
                None => Downmix::FirstTwo,
                Some(ordered) if ordered == speakers => Downmix::Standard,
                Some(ordered) => Downmix::Reordered(ordered),
            }
        }
        _ => Downmix::Standard,
    }
}

/// These speakers in FFmpeg's own order, or nothing if its mixer (`sane_layout` in libswresample) cannot mix
/// them. FFmpeg 7 refuses them in another order.
fn mixable(speakers: &[&str]) -> Option<Vec<&'static str>> {
    const PAIRS: [[&str; 2]; 4] = [["FL", "FR"], ["BL", "BR"], ["FLC", "FRC"], ["SL", "SR"]];
    const ORDER: [&str; 11] = ["FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR"];
    let count = |speaker: &str| speakers.iter().filter(|other| **other == speaker).count();
    let ordered: Vec<_> = ORDER.into_iter().filter(|speaker| count(speaker) == 1).collect();
    let is_mixable = ordered.len() == speakers.len()
        && PAIRS.iter().all(|[left, right]| count(left) == count(right))
        && count("FL") + count("FC") > 0;
    is_mixable.then_some(ordered)
}

/// A track's title. MP4 stores it in the handler name, where programs also write their own names.
fn title(tags: &MetadataTags) -> Option<String> {
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

/// A value, unless it is one of ffprobe's markers for an absent value.
fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !matches!(*text, "" | "unknown" | "unspecified" | "reserved")).map(str::to_owned)
}

/// Parses a finite number; 0 if there is none.
fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse().ok()).filter(|seconds: &f64| seconds.is_finite()).unwrap_or(0.0)
}

/// Parses a duration in seconds; at least 0.
fn seconds(text: Option<&str>) -> f64 {
    number(text).max(0.0)
}

#[cfg(test)]
mod tests;

//! ffprobe's JSON output.

use serde::Deserialize;

use super::media::{Role, flag};

/// ffprobe's output. Numbers that may be fractions are strings.
#[derive(Deserialize, Default)]
pub(super) struct ProbeOutput {
    #[serde(default)]
    pub(super) streams: Vec<Stream>,
    #[serde(default)]
    pub(super) chapters: Vec<ChapterMark>,
    /// The first few packets.
    #[serde(default)]
    pub(super) packets: Vec<Packet>,
    /// Frames in a few places.
    #[serde(default)]
    pub(super) frames: Vec<Frame>,
    #[serde(default)]
    pub(super) format: ContainerFormat,
}

#[derive(Deserialize, Default)]
pub(super) struct ContainerFormat {
    #[serde(default)]
    pub(super) format_name: String,
    pub(super) start_time: Option<String>,
    pub(super) duration: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Stream {
    pub(super) index: usize,
    /// The container's track number in hexadecimal: `0x1`.
    pub(super) id: Option<String>,
    pub(super) codec_type: Option<String>,
    pub(super) codec_name: Option<String>,
    pub(super) codec_tag_string: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) level: Option<i64>,
    #[serde(default)]
    pub(super) width: u32,
    #[serde(default)]
    pub(super) height: u32,
    pub(super) sample_aspect_ratio: Option<String>,
    #[serde(default)]
    pub(super) extradata: Option<Extradata>,
    pub(super) pix_fmt: Option<String>,
    pub(super) color_range: Option<String>,
    pub(super) color_space: Option<String>,
    pub(super) color_transfer: Option<String>,
    pub(super) color_primaries: Option<String>,
    pub(super) field_order: Option<String>,
    #[serde(default)]
    pub(super) has_b_frames: i64,
    pub(super) avg_frame_rate: Option<String>,
    pub(super) r_frame_rate: Option<String>,
    pub(super) nb_frames: Option<String>,
    pub(super) time_base: Option<String>,
    pub(super) start_time: Option<String>,
    pub(super) duration: Option<String>,
    pub(super) bit_rate: Option<String>,
    #[serde(default)]
    pub(super) channels: u32,
    pub(super) channel_layout: Option<String>,
    pub(super) sample_rate: Option<String>,
    #[serde(default)]
    pub(super) disposition: Disposition,
    #[serde(default)]
    pub(super) tags: MetadataTags,
    #[serde(default)]
    pub(super) side_data_list: Vec<SideData>,
}

#[derive(Deserialize, Default)]
pub(super) struct Disposition {
    #[serde(default, deserialize_with = "flag")]
    pub(super) attached_pic: bool,
    #[serde(default, deserialize_with = "flag")]
    pub(super) timed_thumbnails: bool,
    #[serde(default, deserialize_with = "flag")]
    pub(super) still_image: bool,
    #[serde(flatten)]
    pub(super) role: Role,
}

#[derive(Deserialize, Default)]
pub(super) struct MetadataTags {
    pub(super) language: Option<String>,
    pub(super) title: Option<String>,
    pub(super) handler_name: Option<String>,
    /// `1` if blocks of WebM have an alpha channel beside them.
    pub(super) alpha_mode: Option<String>,
    /// Matroska's duration: `00:01:02.345000000`.
    #[serde(rename = "DURATION")]
    pub(super) duration: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct SideData {
    #[serde(default)]
    pub(super) side_data_type: String,
    /// Three lines, each with an offset and three numbers.
    pub(super) displaymatrix: Option<String>,
    pub(super) dv_profile: Option<u32>,
    pub(super) dv_bl_signal_compatibility_id: Option<u32>,
    /// Peak in cd/m².
    pub(super) max_content: Option<u32>,
    /// Peak in cd/m², as a fraction.
    pub(super) max_luminance: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Packet {
    /// Begins with `K` for a keyframe.
    #[serde(default)]
    pub(super) flags: String,
    #[serde(default)]
    pub(super) side_data_list: Vec<SideData>,
}

/// A decoded frame.
#[derive(Deserialize, Default)]
pub(super) struct Frame {
    #[serde(default)]
    pub(super) width: u32,
    #[serde(default)]
    pub(super) height: u32,
    pub(super) sample_aspect_ratio: Option<String>,
    /// 1 if the frame consists of two fields.
    #[serde(default)]
    pub(super) interlaced_frame: u8,
}

impl Frame {
    /// Pixel aspect ratio, width to height, if it is known.
    pub(super) fn pixel_aspect(&self) -> Option<f64> {
        ratio(self.sample_aspect_ratio.as_deref(), ':')
    }
}

/// A codec's configuration, as a dump: lines with an offset, sixteen bytes in hexadecimal, and text.
#[derive(Deserialize)]
pub(super) struct Extradata(String);

impl Extradata {
    pub(super) fn bytes(&self) -> Vec<u8> {
        /// Columns of the bytes, from the colon on: eight groups of four digits, each after a space.
        const COLUMNS: usize = 40;
        let digits =
            self.0.lines().filter_map(|line| line.split_once(':')).flat_map(|(_, columns)| {
                columns.chars().take(COLUMNS).filter_map(|column| column.to_digit(16))
            });
        let digits: Vec<u32> = digits.collect();
        digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }
}

#[derive(Deserialize)]
pub(super) struct ChapterMark {
    pub(super) start_time: Option<String>,
    pub(super) end_time: Option<String>,
    #[serde(default)]
    pub(super) tags: MetadataTags,
}

/// Parses `16:9` or `30000/1001` into a positive number.
pub(super) fn ratio(text: Option<&str>, separator: char) -> Option<f64> {
    let (numerator, denominator) = text?.split_once(separator)?;
    let ratio = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// Parses the output through a JSON value, because tags may repeat a name and need not be UTF-8.
pub(super) fn parse(json: &[u8]) -> serde_json::Result<ProbeOutput> {
    let value: serde_json::Value = serde_json::from_str(&String::from_utf8_lossy(json))?;
    serde_json::from_value(value)
}

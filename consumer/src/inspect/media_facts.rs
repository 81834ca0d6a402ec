//! The facts about a video. The sizing rules use them to choose the size of its task.

/// The facts about a video. `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MediaFacts {
    /// Name of the container format.
    pub container: Option<&'static str>,
    /// FFmpeg's name of the codec, one of [`codecs`].
    pub codec: Option<&'static str>,
    /// Coded width in pixels, before rotation and pixel aspect ratio.
    pub width: Option<u32>,
    /// Coded height in pixels.
    pub height: Option<u32>,
    /// Average frames per second.
    pub frame_rate: Option<f64>,
    /// Duration of the file.
    pub duration_seconds: Option<f64>,
    /// Whether the file has a video track.
    pub has_video: Option<bool>,
    /// Whether the file has an audio track.
    pub has_audio: Option<bool>,
}

impl MediaFacts {
    /// Megapixels per frame; 0 for a file with audio only.
    #[must_use]
    pub fn megapixels(&self) -> Option<f64> {
        if self.has_video == Some(false) {
            return Some(0.0);
        }
        Some(f64::from(self.width?) * f64::from(self.height?) / 1e6)
    }

    /// Whether the facts suffice to choose a size, so that no further read is needed.
    #[must_use]
    pub(super) const fn are_enough(&self) -> bool {
        self.codec.is_some() && self.width.is_some() && self.duration_seconds.is_some()
    }
}

/// Recognised codecs with FFmpeg's names, and their sample entries in MP4 and QuickTime (MP4RA's registry and
/// FFmpeg's `isom_tags.c`).
pub(super) const SAMPLE_ENTRIES: [(&str, &[&[u8; 4]]); 13] = [
    ("av1", &[b"av01", b"dav1"]),
    ("cfhd", &[b"CFHD"]),
    ("dnxhd", &[b"AVdn", b"AVdh"]),
    ("h263", &[b"s263", b"h263"]),
    ("h264", &[b"avc1", b"avc2", b"avc3", b"avc4", b"dva1", b"dvav"]),
    ("hevc", &[b"hvc1", b"hev1", b"dvh1", b"dvhe"]),
    ("mjpeg", &[b"jpeg", b"mjpa", b"mjpb"]),
    // `esds` names the codec, but the walk does not read that box. In uploads it is MPEG-4 Part 2.
    ("mpeg4", &[b"mp4v"]),
    ("png", &[b"png "]),
    ("prores", &[b"apco", b"apcs", b"apcn", b"apch", b"ap4h", b"ap4x"]),
    ("vp8", &[b"vp08"]),
    ("vp9", &[b"vp09"]),
    ("vvc", &[b"vvc1", b"vvi1"]),
];

/// The recognised codecs, with FFmpeg's names.
pub(crate) fn codecs() -> impl Iterator<Item = &'static str> {
    SAMPLE_ENTRIES.iter().map(|(codec, _)| *codec)
}

//! Names of the files in a rendition's folder.

/// File name of a media segment.
#[must_use]
pub(crate) fn segment_name(number: usize) -> String {
    format!("seg-{number:05}.m4s")
}

/// File name of a subtitle segment.
#[must_use]
pub(crate) fn text_segment_name(number: usize) -> String {
    format!("seg-{number:05}.vtt")
}

/// File name of the init segment.
pub(crate) const INIT_NAME: &str = "init.mp4";
/// File name of a media playlist.
pub(crate) const MEDIA_NAME: &str = "index.m3u8";
/// File name of an I-frame playlist.
pub(crate) const I_FRAMES_NAME: &str = "iframes.m3u8";
/// File name of a whole subtitle track.
pub(crate) const TEXT_NAME: &str = "subtitles.vtt";

//! Packaging: from FFmpeg's output to the files that players load.
//!
//! The [`segmenter`] splits FFmpeg's fragmented MP4 into an [`init_segment`] and media segments; [`splice`]
//! joins an encoded prefix and a copied rest. The [`presentation`] is the model of a stream, which [`hls`]
//! and [`dash`] write as manifests with these [`file_names`]. [`captions`] finds closed captions in segments.
//! [`webvtt`] makes subtitles, also from [`ass`], [`storyboard`] makes poster and storyboard from the
//! [`stills`], and [`progressive`] makes MP4 files from the segments.
//!
//! `task` collects stills and subtitles, `publish` calls the rest. No module here makes planning decisions.
//! Only `progressive` uses the store, and only `storyboard` runs FFmpeg.

mod ass;
pub(crate) mod captions;
pub(crate) mod dash;
pub(crate) mod file_names;
pub(crate) mod hls;
pub(crate) mod init_segment;
pub(crate) mod presentation;
pub(crate) mod progressive;
pub(crate) mod segmenter;
pub(crate) mod splice;
pub(crate) mod stills;
pub(crate) mod storyboard;
pub(crate) mod webvtt;

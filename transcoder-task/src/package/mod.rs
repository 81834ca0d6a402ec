pub mod dash;
pub mod hls;
pub mod presentation;
pub mod progressive;
pub mod segmenter;
pub mod stills;
pub mod webvtt;

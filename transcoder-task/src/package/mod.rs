pub mod dash;
pub mod hls;
pub mod progressive;
pub mod segmenter;
pub mod stills;
pub mod webvtt;

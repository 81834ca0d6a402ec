pub mod ffprobe;
pub mod sample_index;

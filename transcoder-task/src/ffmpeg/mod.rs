pub mod arguments;
pub mod colour;
pub mod loudness;
pub mod tone_map;

pub mod builder;
pub mod language;
pub mod resume_point;
pub mod segmentation;

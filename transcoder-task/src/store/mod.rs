pub mod bucket;
pub mod s3;

//! stub
#![allow(missing_docs)]
use crate::call::CallError;
use vidstreamx_job::Source;
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {}
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    Video(Facts),
    NotVideo(String),
    Gone,
    Replaced,
}
pub async fn look(_: &aws_sdk_s3::Client, _: &Source) -> Result<Look, CallError> {
    Ok(Look::Video(Facts::default()))
}

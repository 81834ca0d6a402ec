//! Joins an encoded prefix and the copied rest of a rung into one rendition.

use futures::{Stream, stream};
use tokio::io::AsyncRead;

use super::{
    init_segment::CmafError,
    segmenter::{Output, SegmentationRules, Segmenter},
};

/// The outputs of an H.264 rendition whose segments before the interval `until` come from its encoded prefix.
/// One init segment serves both parts.
pub(crate) fn outputs_after_prefix<R: AsyncRead + Unpin>(
    encoded_prefix: R,
    until: i64,
    reader: R,
    rules: SegmentationRules,
    first_number: usize,
) -> impl Stream<Item = Result<Output, CmafError>> {
    // The prefix ends before the stream does.
    let of_prefix = SegmentationRules { end_seconds: 0.0, ..rules.clone() };
    let encoded_prefix = Segmenter::new(encoded_prefix, of_prefix, first_number);
    let spliced = Spliced {
        encoded_prefix: Some(encoded_prefix),
        until,
        reached: None,
        rest: Segmenter::new(reader, rules, 0),
    };
    stream::try_unfold(spliced, |mut spliced| async move {
        Ok(spliced.next().await?.map(|output| (output, spliced)))
    })
}

struct Spliced<R> {
    /// Absent after the end of the encoded prefix.
    encoded_prefix: Option<Segmenter<R>>,
    until: i64,
    /// The last complete interval of the encoded prefix.
    reached: Option<i64>,
    rest: Segmenter<R>,
}

impl<R: AsyncRead + Unpin> Spliced<R> {
    async fn next(&mut self) -> Result<Option<Output>, CmafError> {
        let Some(encoded_prefix) = &mut self.encoded_prefix else { return self.rest.next().await };
        match encoded_prefix.next().await? {
            Some(Output::Init(encoded_prefix)) => match self.rest.next().await? {
                Some(Output::Init(rest)) => {
                    Ok(Some(Output::Init(rest.with_parameter_sets_of(&encoded_prefix)?)))
                }
                _ => Err(CmafError::Unexpected("segments without an init segment")),
            },
            Some(Output::Segment(segment)) if !segment.is_last => {
                self.reached = Some(segment.interval);
                Ok(Some(Output::Segment(segment)))
            }
            None if self.reached == Some(self.until - 1) => {
                self.rest.next_number = encoded_prefix.next_number;
                self.encoded_prefix = None;
                self.rest.next().await
            }
            _ => Err(CmafError::Splice("the encoded prefix ends too early")),
        }
    }
}

//! Stills at a regular interval, which FFmpeg writes as JPEGs to a pipe beside the renditions. Poster and
//! storyboard are made from them.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::plan::still_interval::MAX_STILLS;

/// Most bytes of kept stills, which stay in memory until the end of the video. A hundred of 720p are 5 to 20
/// MB.
const MAX_BYTES: usize = 24 << 20;
/// Largest still: 4096 by 720 pixels of noise are 4 MB.
const MAX_STILL_BYTES: usize = 8 << 20;
/// JPEG's start of image, and the first byte of the next marker.
const START: [u8; 3] = [0xff, 0xd8, 0xff];
/// JPEG's end of image. Neither marker occurs inside an image: in JPEG data each 0xFF is followed by a zero
/// or a restart marker, and the tables of FFmpeg's encoder have no 0xFF.
const END: [u8; 2] = [0xff, 0xd9];

/// JPEGs of one size and quality at a regular interval from the beginning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stills {
    pub(super) jpegs: Vec<Bytes>,
    pub(super) interval_seconds: f64,
    taken: usize,
    /// Of each group of this many stills, only the first is kept.
    one_of: usize,
}

/// A JPEG with this many bytes between its markers.
#[cfg(test)]
fn jpeg(content: usize) -> Bytes {
    [&START[..], &vec![7; content], &END].concat().into()
}

impl Stills {
    /// JPEGs with this many bytes between their markers, one per second.
    #[cfg(test)]
    pub(super) fn of_tests(contents: &[usize]) -> Self {
        let mut stills = Self::every(1.0);
        contents.iter().for_each(|content| stills.take(jpeg(*content)));
        stills
    }

    /// An empty series at this interval.
    #[must_use]
    pub(crate) fn every(interval_seconds: f64) -> Self {
        Self { jpegs: Vec::new(), interval_seconds, taken: 0, one_of: 1 }
    }

    /// Number of stills so far, dropped ones included.
    #[must_use]
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Adds the next still. If there are too many, because the duration is unknown or wrong, drops every
    /// other one.
    pub(crate) fn take(&mut self, jpeg: Bytes) {
        if self.taken.is_multiple_of(self.one_of) {
            self.jpegs.push(jpeg);
        }
        self.taken += 1;
        while self.too_many() {
            self.thin();
            self.one_of *= 2;
        }
    }

    /// Reads FFmpeg's stills to the end of the pipe, and passes each to `on_still`.
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub(crate) async fn read(
        mut self,
        mut pipe: impl AsyncRead + Unpin,
        mut on_still: impl FnMut(&Bytes),
    ) -> std::io::Result<Self> {
        let mut stream = JpegStream::default();
        while pipe.read_buf(&mut stream.buffer).await? > 0 {
            while let Some(jpeg) = stream.next() {
                on_still(&jpeg);
                self.take(jpeg);
            }
        }
        Ok(self)
    }

    fn too_many(&self) -> bool {
        let bytes: usize = self.jpegs.iter().map(Bytes::len).sum();
        self.jpegs.len() > MAX_STILLS || (bytes > MAX_BYTES && self.jpegs.len() > 1)
    }

    fn thin(&mut self) {
        let mut number = 0;
        self.jpegs.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.interval_seconds *= 2.0;
    }
}

/// Splits concatenated JPEGs, up to the first incomplete one.
#[must_use]
pub(crate) fn split(bytes: &[u8]) -> Vec<Bytes> {
    let mut stream = JpegStream { buffer: bytes.into(), searched: 0 };
    std::iter::from_fn(|| stream.next()).collect()
}

/// Splits a stream of bytes into JPEGs.
#[derive(Default)]
struct JpegStream {
    buffer: BytesMut,
    /// No end of image lies before this position.
    searched: usize,
}

impl JpegStream {
    fn next(&mut self) -> Option<Bytes> {
        if self.searched == 0 {
            let start = memmem::find(&self.buffer, &START)
                // The buffer may end within a start marker.
                .unwrap_or(self.buffer.len().saturating_sub(START.len() - 1));
            self.buffer.advance(start);
            if !self.buffer.starts_with(&START) {
                return None;
            }
            self.searched = START.len();
        }
        match memmem::find(&self.buffer[self.searched..], &END) {
            Some(at) => {
                let jpeg = self.buffer.split_to(self.searched + at + END.len());
                self.searched = 0;
                // A copy, so that a dropped still frees its memory.
                Some(Bytes::copy_from_slice(&jpeg))
            }
            None if self.buffer.len() > MAX_STILL_BYTES => {
                self.buffer.clear();
                self.searched = 0;
                None
            }
            None => {
                self.searched = self.buffer.len().saturating_sub(END.len() - 1).max(START.len());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn read(bytes: &[u8], interval_seconds: f64) -> Stills {
        Stills::every(interval_seconds).read(bytes, |_| {}).await.unwrap()
    }

    #[tokio::test]
    async fn stills_are_split_at_any_chunk_boundary() {
        let expected = Stills::of_tests(&[3, 0, 500]);
        let stream = [b"noise\xff", &expected.jpegs.concat()[..], b"\xff", &START, b"cut off"].concat();
        for size in [1, 2, 3, 7, 400, 4096] {
            let (mut sender, receiver) = tokio::io::duplex(size);
            let send = async {
                sender.write_all(&stream).await.unwrap();
                drop(sender);
            };
            let (read, ()) = tokio::join!(Stills::every(1.0).read(receiver, |_| {}), send);
            assert_eq!(read.unwrap(), expected, "in chunks of {size} bytes");
        }
        assert_eq!(read(b"", 1.0).await, Stills::of_tests(&[]));
    }

    #[tokio::test]
    async fn every_other_still_is_dropped_while_there_are_too_many() {
        let sent: Vec<Bytes> = (0..1000).map(jpeg).collect();
        let kept = read(&sent.concat(), 0.5).await;
        assert_eq!(kept.interval_seconds, 8.0);
        assert_eq!(kept.jpegs, sent.iter().step_by(16).cloned().collect::<Vec<_>>());
        let heavy = vec![jpeg(MAX_STILL_BYTES / 2); 20].concat();
        let kept = read(&heavy, 1.0).await;
        assert_eq!((kept.jpegs.len(), kept.interval_seconds), (5, 4.0));
        let endless = [&START[..], &vec![7; 3 * MAX_STILL_BYTES], &jpeg(9)].concat();
        assert_eq!(read(&endless, 1.0).await.jpegs, [jpeg(9)]);
    }

    proptest! {
        #[test]
        fn a_video_half_a_second_longer_than_stated_keeps_all_its_stills(duration in 0.01_f64..86_400.0) {
            let interval = crate::plan::still_interval::seconds(duration);
            prop_assert!(interval >= 1.0);
            prop_assert!(((duration + 0.5) / interval).ceil() <= MAX_STILLS as f64);
            if duration > 100.0 {
                prop_assert!(duration / interval >= 50.0, "too few");
            }
        }
    }
}

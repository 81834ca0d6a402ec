//! The end of a file, in memory.

use crate::{source::loopback::Input, store::S3Error};

/// Sizes of the window at the end of the file in bytes. 4 MiB are 20 s of 1.6 Mbit/s. A live recording of 4K
/// may have clusters of 20 MiB.
const SIZES: [u64; 3] = [1 << 20, 4 << 20, 32 << 20];
/// A window of this size is enough if it has any track. Other tracks may have ended long before.
const ENOUGH: u64 = SIZES[1];

/// A window at the end of a file. It grows towards the beginning.
pub(super) struct Tail {
    /// Offset of the first byte that may be in the window.
    first: u64,
    file_size: u64,
    start: u64,
    bytes: Vec<u8>,
    grown: usize,
}

impl Tail {
    /// An empty window at the end of a file. It never contains bytes before `first`.
    pub(super) fn new(first: u64, file_size: u64) -> Self {
        Self { first: first.min(file_size), file_size, start: file_size, bytes: Vec::new(), grown: 0 }
    }

    /// Grows the window and returns its offset in the file, and its bytes; `None` if it cannot grow.
    ///
    /// # Errors
    /// S3 fails.
    pub(super) async fn grow(&mut self, input: &Input) -> Result<Option<(u64, &[u8])>, S3Error> {
        let Some(size) = SIZES.get(self.grown).filter(|_| self.start > self.first) else { return Ok(None) };
        self.grown += 1;
        let start = self.file_size.saturating_sub(*size).max(self.first);
        let Some(bytes) = input.bytes(start, self.start).await? else { return Ok(None) };
        if bytes.len() as u64 != self.start - start {
            return Ok(None);
        }
        self.bytes.splice(0..0, bytes);
        self.start = start;
        Ok(Some((start, &self.bytes)))
    }

    /// Returns true if a larger window is not worth its time. `found`: it has the end of any track.
    pub(super) fn is_enough(&self, found: bool) -> bool {
        found && self.file_size - self.start >= ENOUGH
    }
}

//! Walks over the boxes of a file that is read in windows.
//!
//! The caller reads windows and adds them to [`Windows`]. A walk over a range of the file ([`BoxesIn`]) only
//! moves forward. If it needs bytes that were not read, it fails with their offset ([`Missing::At`]).

use std::ops::Range;

use mp4_atom::Atom;

use crate::{BoxType, boxes::BoxHeader};

/// Maximum bytes of a box that is decoded from a window. The largest one, `mvhd`, has 112 bytes.
const MAX_FIELDS: u64 = 256;

/// The reason why bytes are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The bytes from this offset on were not read.
    At(u64),
    /// The bytes do not exist, or are invalid.
    Never,
}

/// A box of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBox {
    /// The box's type.
    pub kind: BoxType,
    /// The range of its body in the file.
    pub body: Range<u64>,
    /// Whether the box claims to extend beyond its parent. If so, its body ends with the parent.
    pub truncated: bool,
}

/// The windows that were read from a file so far.
#[derive(Debug, Default)]
pub struct Windows<B> {
    windows: Vec<(u64, B)>,
}

impl<B: AsRef<[u8]>> Windows<B> {
    /// Starts without windows.
    #[must_use]
    pub const fn new() -> Self {
        Self { windows: Vec::new() }
    }

    /// Number of windows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// Adds the bytes at an offset of the file.
    pub fn add(&mut self, offset: u64, bytes: B) {
        self.windows.push((offset, bytes));
    }

    /// The bytes of a range. They must be in one window.
    ///
    /// # Errors
    /// [`Missing::At`] if no window has all of them; [`Missing::Never`] for an empty range.
    pub fn slice(&self, range: Range<u64>) -> Result<&[u8], Missing> {
        if range.start >= range.end {
            return Err(Missing::Never);
        }
        let in_window = |(offset, bytes): &(u64, B)| {
            let start = usize::try_from(range.start.checked_sub(*offset)?).ok()?;
            let end = usize::try_from(range.end.checked_sub(*offset)?).ok()?;
            (end <= bytes.as_ref().len()).then_some(start..end)
        };
        let found = self.windows.iter().find_map(|window| window.1.as_ref().get(in_window(window)?));
        found.ok_or(Missing::At(range.start))
    }

    /// At most the first `most` bytes of a range.
    ///
    /// # Errors
    /// As for [`Windows::slice`].
    pub fn prefix(&self, range: &Range<u64>, most: u64) -> Result<&[u8], Missing> {
        self.slice(range.start..range.end.min(range.start.saturating_add(most)))
    }

    /// Decodes the fields of a small box from its body.
    ///
    /// # Errors
    /// As for [`Windows::slice`]; [`Missing::Never`] if the box is malformed.
    pub fn decode<T: Atom>(&self, body: &Range<u64>) -> Result<T, Missing> {
        T::decode_body(&mut self.prefix(body, MAX_FIELDS)?).map_err(|_| Missing::Never)
    }
}

/// The boxes in a range of the file.
#[derive(Debug)]
pub struct BoxesIn<'a, B> {
    windows: &'a Windows<B>,
    rest: Range<u64>,
}

impl<'a, B: AsRef<[u8]>> BoxesIn<'a, B> {
    /// The boxes in a range: the whole file, or the body of a box.
    #[must_use]
    pub const fn new(windows: &'a Windows<B>, range: Range<u64>) -> Self {
        Self { windows, rest: range }
    }

    /// Whether the walk has reached the end of the range.
    #[must_use]
    pub const fn at_end(&self) -> bool {
        self.rest.start >= self.rest.end
    }

    /// The next box.
    ///
    /// # Errors
    /// [`Missing::At`] if its header was not read; [`Missing::Never`] at the end, and if its header is not
    /// valid.
    pub fn advance(&mut self) -> Result<FoundBox, Missing> {
        let bytes = self.windows.prefix(&self.rest, BoxHeader::LONG as u64)?;
        let header = BoxHeader::parse(bytes).ok_or(Missing::Never)?;
        let start = self.rest.start + header.length as u64;
        let claimed = header.body.map_or(self.rest.end, |body| start.saturating_add(body as u64));
        let end = claimed.min(self.rest.end);
        self.rest.start = end;
        Ok(FoundBox { kind: header.kind, body: start..end, truncated: claimed > end })
    }

    /// The next box; `None` at the end, and if its header is not valid.
    ///
    /// # Errors
    /// The offset of a header that was not read, as [`Missing::At`].
    pub fn advance_or_end(&mut self) -> Result<Option<FoundBox>, Missing> {
        match self.advance() {
            Ok(found) => Ok(Some(found)),
            Err(Missing::Never) => Ok(None),
            Err(missing) => Err(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrap;

    #[test]
    fn a_walk_returns_the_offset_that_it_needs() {
        let file = [wrap(b"free", &[0; 100]), wrap(b"moov", &[1; 10])].concat();
        let size = file.len() as u64;
        let mut windows = Windows::new();
        let moov = |windows: &Windows<Vec<u8>>| {
            let mut boxes = BoxesIn::new(windows, 0..size);
            loop {
                let found = boxes.advance()?;
                if found.kind == *b"moov" {
                    return Ok(found);
                }
            }
        };
        assert_eq!(moov(&windows), Err(Missing::At(0)));
        windows.add(0, file[..20].to_vec());
        assert_eq!(moov(&windows), Err(Missing::At(108)));
        windows.add(108, file[108..].to_vec());
        let found = moov(&windows).unwrap();
        assert_eq!((found.body.clone(), found.truncated), (116..126, false));
        assert_eq!(windows.slice(found.body), Ok(&[1; 10][..]));
        assert_eq!((windows.count(), windows.slice(5..5)), (2, Err(Missing::Never)));
    }

    #[test]
    fn a_box_ends_with_its_parent() {
        let mut file = wrap(b"moov", &[0; 8]);
        file[3] = 200;
        let mut windows = Windows::new();
        windows.add(0, &file);
        let mut boxes = BoxesIn::new(&windows, 0..16);
        assert_eq!(boxes.advance(), Ok(FoundBox { kind: *b"moov", body: 8..16, truncated: true }));
        assert!(boxes.at_end());
        assert_eq!(boxes.advance_or_end(), Ok(None));
    }
}

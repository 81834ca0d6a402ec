//! Text helpers of both programs: hex digits of a hash, and ETags without quotes.

use std::fmt::Write;

/// The first `bytes` bytes of a digest as lower-case hex digits, two per byte.
#[must_use]
pub fn hex_prefix(digest: impl AsRef<[u8]>, bytes: usize) -> String {
    digest.as_ref().iter().take(bytes).fold(String::with_capacity(2 * bytes), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An ETag without its quotes. S3's API sends the quotes, S3's events do not.
#[must_use]
pub fn unquote_etag(etag: &str) -> &str {
    etag.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_two_lower_case_digits_per_byte() {
        assert_eq!(hex_prefix([0x0a, 0xff, 0x10], 2), "0aff");
        assert_eq!(hex_prefix([1], 4), "01");
    }

    #[test]
    fn quotes_of_an_etag_are_removed_if_it_has_them() {
        assert_eq!(unquote_etag("\"abc-2\""), "abc-2");
        assert_eq!(unquote_etag("abc-2"), "abc-2");
    }
}

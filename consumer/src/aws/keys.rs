//! Object keys in listings and requests, which S3 encodes as XML.

use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

/// A key as a listing contains it, decoded; `None` if it is not UTF-8. Listings request URL encoding, because
/// keys can have characters that XML does not allow.
#[must_use]
pub(crate) fn decoded(key: &str, encoding: Option<&EncodingType>) -> Option<String> {
    if encoding != Some(&EncodingType::Url) {
        return Some(key.to_owned());
    }
    let spaced = key.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}

/// Whether XML 1.0 allows all characters of a key. A request body cannot contain other keys in any encoding.
#[must_use]
pub(crate) fn fits_xml(key: &str) -> bool {
    !key.chars().any(|character| {
        matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encoded_listings_are_decoded() {
        assert_eq!(decoded("a+%2B%01.mp4", Some(&EncodingType::Url)).as_deref(), Some("a +\u{1}.mp4"));
        assert_eq!(decoded("a+%2B.mp4", None).as_deref(), Some("a+%2B.mp4"));
        assert_eq!(decoded("%ff", Some(&EncodingType::Url)), None);
    }

    #[test]
    fn control_characters_do_not_fit_xml() {
        assert!(fits_xml("films/a b\t\n\r<&>é🎬.mp4"));
        assert!(!fits_xml("a\u{1}.mp4") && !fits_xml("a\u{1f}.mp4") && !fits_xml("\u{fffe}"));
    }
}

//! Language codes in files: ISO 639 codes, or tags of RFC 5646 (BCP 47). They are text of the upload.

use icu_locale_core::LanguageIdentifier;
use isolang::Language;

/// The bibliographic codes of ISO 639-2 with their terminological equivalents, which ISO 639-3 also has.
/// Matroska stores the former, MP4 mostly the latter.
const BIBLIOGRAPHIC: [(&str, &str); 20] = [
    ("alb", "sqi"),
    ("arm", "hye"),
    ("baq", "eus"),
    ("bur", "mya"),
    ("chi", "zho"),
    ("cze", "ces"),
    ("dut", "nld"),
    ("fre", "fra"),
    ("geo", "kat"),
    ("ger", "deu"),
    ("gre", "ell"),
    ("ice", "isl"),
    ("mac", "mkd"),
    ("mao", "mri"),
    ("may", "msa"),
    ("per", "fas"),
    ("rum", "ron"),
    ("slo", "slk"),
    ("tib", "bod"),
    ("wel", "cym"),
];
/// Longest language tag that is read, in bytes (RFC 5646, 4.4.1).
const LONGEST_TAG: usize = 35;
/// A language code or tag in its usual spelling, without variants and extensions (`GER` becomes `ger`,
/// `pt_br` becomes `pt-BR`), for names of tracks and the report; `None` if it names no language. Codes come
/// from the upload, so all else is left out.
pub(crate) fn canonical(code: &str) -> Option<String> {
    let mut identifier = identifier(code)?;
    known(identifier.language.as_str())?;
    identifier.variants.clear();
    Some(identifier.to_string())
}

/// Parses a code or tag. Private and unusual subtags after the region end it.
pub(crate) fn identifier(code: &str) -> Option<LanguageIdentifier> {
    if code.len() > LONGEST_TAG {
        return None;
    }
    let subtags: Vec<&str> = code.split(['-', '_']).collect();
    (1..=subtags.len().min(3)).rev().find_map(|length| subtags[..length].join("-").parse().ok())
}

/// The language of a code; `None` for the codes of undetermined, multiple, absent and uncoded languages.
pub(crate) fn known(code: &str) -> Option<Language> {
    let code = BIBLIOGRAPHIC.iter().find(|(old, _)| *old == code).map_or(code, |(_, modern)| modern);
    if matches!(code, "und" | "mul" | "zxx" | "mis") {
        return None;
    }
    Language::from_639_3(code).or_else(|| Language::from_639_1(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_length_in_names() {
        for (code, expected) in [
            ("eng", Some("eng")),
            ("GER", Some("ger")),
            ("en", Some("en")),
            ("pt_br", Some("pt-BR")),
            ("zh-hans", Some("zh-Hans")),
            ("und", None),
            ("../x", None),
            ("en/../x", None),
        ] {
            assert_eq!(canonical(code).as_deref(), expected, "{code}");
        }
    }

    #[test]
    fn bibliographic_codes_name_languages_with_short_codes() {
        for (code, modern) in BIBLIOGRAPHIC {
            assert!(known(code).unwrap().to_639_1().is_some(), "{code}");
            assert_eq!(known(code), known(modern));
        }
    }
}

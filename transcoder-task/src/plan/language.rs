//! Languages of tracks: from codes in files (ISO 639, or RFC 5646 tags) to tags in manifests (RFC 5646) and
//! names in menus.

use crate::analysis::language_code::{identifier, known};

/// Longest title in a label, in characters. Titles come from the upload.
const LONGEST_TITLE: usize = 80;

/// A track's language code and title, as stored in the file.
pub(crate) type Described<'a> = (Option<&'a str>, Option<&'a str>);

/// Names of scripts and regions that distinguish tracks of one language in menus; others are shown as codes.
const VARIETIES: [(&str, &str); 18] = [
    ("Hans", "Simplified"),
    ("Hant", "Traditional"),
    ("Latn", "Latin"),
    ("Cyrl", "Cyrillic"),
    ("419", "Latin America"),
    ("AT", "Austria"),
    ("BR", "Brazil"),
    ("CA", "Canada"),
    ("CH", "Switzerland"),
    ("CN", "China"),
    ("ES", "Spain"),
    ("FR", "France"),
    ("GB", "UK"),
    ("HK", "Hong Kong"),
    ("MX", "Mexico"),
    ("PT", "Portugal"),
    ("TW", "Taiwan"),
    ("US", "US"),
];

/// The shortest RFC 5646 tag for a language code or tag of a file: `en` for `eng`, `de` for `ger`, `pt-BR`
/// for `por_br`; `None` if it names no language. Only language, script and region are kept.
pub(crate) fn tag(code: &str) -> Option<String> {
    let mut identifier = identifier(code)?;
    let language = known(identifier.language.as_str())?;
    let shortest = language.to_639_1().unwrap_or(language.to_639_3());
    identifier.language = shortest.parse().ok()?;
    identifier.variants.clear();
    Some(identifier.to_string())
}

/// Script and region of a code, as words for a menu: `Brazil`, `Simplified, Taiwan`.
fn variety(code: &str) -> Option<String> {
    let identifier = identifier(code)?;
    let script = identifier.script.map(|script| script.to_string());
    let region = identifier.region.map(|region| region.to_string());
    let word = |subtag: String| {
        let known = VARIETIES.iter().find(|(known, _)| *known == subtag);
        known.map_or(subtag, |(_, word)| (*word).to_owned())
    };
    let words: Vec<String> = [script, region].into_iter().flatten().map(word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// A unique name for each track in a menu: the English name of its language, followed by script and region.
/// The title follows if several tracks have that name. Without a language it is the title, else `nameless`.
pub(crate) fn labels(tracks: &[Described], nameless: &str) -> Vec<String> {
    let described: Vec<(Option<String>, Option<String>)> =
        tracks.iter().map(|(code, title)| (code.and_then(name), title.and_then(sanitized))).collect();
    let mut labels: Vec<String> = Vec::with_capacity(tracks.len());
    for (name, title) in &described {
        let shared = described.iter().filter(|(other, _)| other == name).count() > 1;
        let label = match (name, title) {
            (Some(name), Some(title)) if shared => format!("{name} ({title})"),
            (Some(name), _) => name.clone(),
            (None, Some(title)) => title.clone(),
            (None, None) => nameless.to_owned(),
        };
        let mut unique = label.clone();
        let mut number = 1;
        while labels.contains(&unique) {
            number += 1;
            unique = format!("{label} {number}");
        }
        labels.push(unique);
    }
    labels
}

/// The English name of a code's language, with script and region: `Portuguese (Brazil)`.
fn name(code: &str) -> Option<String> {
    let language = known(identifier(code)?.language.as_str())?.to_name();
    Some(variety(code).map_or(language.to_owned(), |variety| format!("{language} ({variety})")))
}

/// A title on one line, without the characters that playlists and XML cannot hold; `None` if nothing is left.
fn sanitized(title: &str) -> Option<String> {
    let fits = |c: &char| !c.is_control() && !matches!(c, '"' | '\u{FFFE}' | '\u{FFFF}');
    let title: String = title.trim().chars().filter(fits).take(LONGEST_TITLE).collect();
    (!title.trim().is_empty()).then(|| title.trim().to_owned())
}

/// A track's name in URLs: its language code, and a number from 2 on if the code is taken.
pub(super) fn numbered<'a>(
    language: Option<&str>,
    taken: impl Iterator<Item = &'a String> + Clone,
) -> String {
    let text = language.unwrap_or("und");
    let mut unique = text.to_owned();
    let mut number = 1;
    while taken.clone().any(|name| *name == unique) {
        number += 1;
        unique = format!("{text}-{number}");
    }
    unique
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::language_code::canonical;

    #[test]
    fn codes_become_the_shortest_tags() {
        for (code, expected) in [
            ("eng", Some("en")),
            ("deu", Some("de")),
            ("ger", Some("de")),
            ("GER", Some("de")),
            ("en", Some("en")),
            ("haw", Some("haw")),
            ("por-BR", Some("pt-BR")),
            ("pt_br", Some("pt-BR")),
            ("es-419", Some("es-419")),
            ("zh_Hant", Some("zh-Hant")),
            ("zho-hans-cn", Some("zh-Hans-CN")),
            ("de-CH-1996", Some("de-CH")),
            ("en-US-u-ca-gregory", Some("en-US")),
            ("en-x-secret", Some("en")),
            ("x-secret", None),
            ("i-klingon", None),
            ("xx-BR", None),
            ("en-\"x", Some("en")),
            ("und", None),
            ("zxx", None),
            ("", None),
            ("../x", None),
            ("english", None),
        ] {
            assert_eq!(tag(code).as_deref(), expected, "{code}");
        }
        assert_eq!(tag(&"en-".repeat(1000)), None);
    }

    #[test]
    fn labels_name_script_and_region() {
        let described =
            ["pt-BR", "pt-PT", "zh-Hans", "zh-Hant-HK", "en-NZ", "en"].map(|code| (Some(code), None));
        assert_eq!(
            labels(&described, "Audio"),
            [
                "Portuguese (Brazil)",
                "Portuguese (Portugal)",
                "Chinese (Simplified)",
                "Chinese (Traditional, Hong Kong)",
                "English (NZ)",
                "English"
            ]
        );
    }

    #[test]
    fn labels_are_english_language_names() {
        let labels = labels(
            &[
                (Some("eng"), Some("Stereo")),
                (Some("ger"), None),
                (Some("eng"), Some("Director's \"comments\"\n")),
                (Some("eng"), None),
                (None, Some("Music")),
                (None, None),
                (Some("xxxx"), Some("\r\n")),
            ],
            "Audio",
        );
        assert_eq!(
            labels,
            [
                "English (Stereo)",
                "German",
                "English (Director's comments)",
                "English",
                "Music",
                "Audio",
                "Audio 2"
            ]
        );
    }

    proptest! {
        #[test]
        fn tags_of_any_code_are_safe_in_urls_and_manifests(code in "[a-zA-Z]{2,3}([-_][a-zA-Z0-9]{1,8}){0,4}|\\PC{0,40}") {
            for tag in [tag(&code), canonical(&code)].into_iter().flatten() {
                let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                prop_assert!(tag.len() <= 12 && tag.bytes().all(is_safe));
                prop_assert_eq!(self::tag(&tag), self::tag(&code));
            }
        }

        #[test]
        fn labels_are_unique_and_fit_into_a_playlist(
            tracks in prop::collection::vec(
                (prop::option::of("eng|ger|fre|und|[a-z\"]{0,4}"), prop::option::of("[ab\"\n]{0,3}|\\PC{0,200}")),
                0..12,
            ),
        ) {
            let described: Vec<Described> =
                tracks.iter().map(|(code, title)| (code.as_deref(), title.as_deref())).collect();
            let mut labels = labels(&described, "Audio");
            prop_assert_eq!(labels.len(), tracks.len());
            for label in &labels {
                prop_assert!(!label.is_empty() && !label.contains(['"', '\n', '\r']));
            }
            labels.sort();
            labels.dedup();
            prop_assert_eq!(labels.len(), tracks.len());
        }
    }
}

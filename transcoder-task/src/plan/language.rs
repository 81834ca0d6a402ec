//! Languages of tracks: from codes in files (ISO 639-2, both variants) to tags in manifests (RFC 5646) and
//! names in menus.

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
/// Longest title in a label, in characters. Titles come from the upload.
const LONGEST_TITLE: usize = 80;

/// A track's language code and title, as stored in the file.
pub(crate) type Described<'a> = (Option<&'a str>, Option<&'a str>);

/// The shortest RFC 5646 tag for a file's language code: `en` for `eng`, `de` for `ger`, `pt-BR` for
/// `por-BR`; `None` if the code names no language.
pub(crate) fn tag(code: &str) -> Option<String> {
    let mut subtags = code.split(['-', '_']);
    let language = known(subtags.next()?)?;
    let mut tag = language.to_639_1().unwrap_or(language.to_639_3()).to_owned();
    // Script and region. An invalid subtag ends the tag.
    for subtag in subtags.take_while(|subtag| {
        (2..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }) {
        tag.push('-');
        tag.push_str(subtag);
    }
    Some(tag)
}

/// The language of a code; `None` for the codes of undetermined, multiple, absent and uncoded languages.
fn known(code: &str) -> Option<Language> {
    let code = code.to_ascii_lowercase();
    let code = BIBLIOGRAPHIC.iter().find(|(old, _)| *old == code).map_or(code.as_str(), |(_, modern)| modern);
    if matches!(code, "und" | "mul" | "zxx" | "mis") {
        return None;
    }
    Language::from_639_3(code).or_else(|| Language::from_639_1(code))
}

/// A unique name for each track in a menu: the English name of its language, followed by the title if several
/// tracks have that language. Without a language it is the title, else `nameless`.
pub(crate) fn labels(tracks: &[Described], nameless: &str) -> Vec<String> {
    let described: Vec<(Option<&str>, Option<String>)> = tracks
        .iter()
        .map(|(code, title)| {
            (code.and_then(known).map(|language| language.to_name()), title.and_then(sanitized))
        })
        .collect();
    let mut labels: Vec<String> = Vec::with_capacity(tracks.len());
    for (name, title) in &described {
        let shared = described.iter().filter(|(other, _)| other == name).count() > 1;
        let label = match (name, title) {
            (Some(name), Some(title)) if shared => format!("{name} ({title})"),
            (Some(name), _) => (*name).to_owned(),
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
            ("zh_Hant", Some("zh-Hant")),
            ("en-\"x", Some("en")),
            ("und", None),
            ("zxx", None),
            ("", None),
            ("../x", None),
            ("english", None),
        ] {
            assert_eq!(tag(code).as_deref(), expected, "{code}");
        }
        for (code, modern) in BIBLIOGRAPHIC {
            assert_eq!(tag(code).as_deref().map(str::len), Some(2), "{code}");
            assert_eq!(tag(code), tag(modern));
        }
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

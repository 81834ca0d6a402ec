//! Formats values for a terminal.

use jiff::{SignedDuration, SignedDurationRound, Timestamp, Unit};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
use vidstreamx_job::State;

/// All states, in the order in which summaries list them.
pub(crate) const STATES: [State; 6] =
    [State::Done, State::Running, State::Rejected, State::Obsolete, State::Cancelled, State::Failed];

/// Formats a text for one line. Keys and reasons come from uploads, so characters that move the cursor or
/// change the text direction are escaped.
#[must_use]
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => shown.push(' '),
            character if character.is_control() || breaks_layout(character) => {
                shown.extend(character.escape_unicode())
            }
            character => shown.push(character),
        }
    }
    shown
}

/// Unicode's line and paragraph separators, and its direction marks.
const fn breaks_layout(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shortens a key to a number of columns. Keeps its end, which is more useful than its beginning.
#[must_use]
pub(crate) fn end_of(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut from = text.len();
    for (at, character) in text.char_indices().rev() {
        let width = character.width().unwrap_or_default();
        if width > left {
            break;
        }
        left -= width;
        from = at;
    }
    format!("…{}", text.get(from..).unwrap_or_default())
}

/// Date and time in UTC, without seconds.
#[must_use]
pub(crate) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Month, day and time in UTC, without seconds.
#[must_use]
pub(crate) fn minute_of_year(at: Timestamp) -> String {
    at.strftime("%m-%d %H:%M").to_string()
}

/// Date and time in UTC, with seconds.
#[must_use]
pub(crate) fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A duration such as `4m 3s`. A negative duration, from clocks of different machines, is shown as zero.
#[must_use]
pub(crate) fn duration(duration: SignedDuration) -> String {
    let duration = duration.max(SignedDuration::ZERO);
    let rounding = SignedDurationRound::new().smallest(Unit::Second);
    format!("{:#}", duration.round(rounding).unwrap_or(duration))
}

/// US dollars, with four decimal places below one dollar.
#[must_use]
pub(crate) fn money(usd: f64) -> String {
    if usd.abs() < 1.0 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

/// A number with its noun: `1 video`, `2 videos`.
#[must_use]
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d é 日本"), "a\\u{1b}[2Jb c\\u{202e}d é 日本");
    }

    #[test]
    fn a_long_key_keeps_its_end() {
        assert_eq!(end_of("short.mp4", 9), "short.mp4");
        assert_eq!(end_of("a/long/path/film.mp4", 9), "…film.mp4");
        assert_eq!(end_of("日本日本.mp4", 9), "…日本.mp4");
    }

    #[test]
    fn times_and_money() {
        assert_eq!(duration(SignedDuration::from_millis(3_400)), "3s");
        assert_eq!(duration(SignedDuration::from_secs(7_500)), "2h 5m");
        assert_eq!(duration(SignedDuration::from_secs(-5)), "0s");
        assert_eq!(money(0.001_24), "$0.0012");
        assert_eq!(money(12.345), "$12.35");
    }

    proptest! {
        #[test]
        fn a_text_stays_on_one_line_within_its_columns(text in "\\PC{0,40}|[\\x00-\\x1f]{0,9}", columns in 1usize..30) {
            let shown = clean(&text);
            prop_assert!(!shown.contains(char::is_control));
            prop_assert!(end_of(&shown, columns).width() <= columns.max(1));
        }
    }
}

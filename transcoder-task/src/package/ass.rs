//! Subtitles in ASS and SSA: from their script to the text of cues.
//!
//! FFmpeg's own conversion to WebVTT drops override tags, also the one that turns text into a drawing, so
//! that the drawing's coordinates would be shown.

use std::collections::HashMap;

/// Styles that WebVTT has, too: bold, italic and underlined.
type Styles = [bool; 3];
const TAGS: [char; 3] = ['b', 'i', 'u'];
/// Fields before the text of an event: layer, start, end, style, name, three margins, effect.
const FIELDS: usize = 9;

/// The lines of dialogue: start and end in milliseconds, and text. The text has line breaks, and WebVTT's
/// tags for its styles; it is not escaped.
pub(super) fn dialogue(script: &str) -> impl Iterator<Item = (u64, u64, String)> {
    let styles = styles(script);
    script.lines().filter_map(move |line| {
        let line = line.strip_prefix("Dialogue:")?.trim_start();
        let mut fields = line.splitn(FIELDS + 1, ',');
        let (_layer, start, end) = (fields.next()?, time(fields.next()?)?, time(fields.next()?)?);
        let style = fields.next()?.trim();
        let text = fields.nth(FIELDS - 4)?;
        Some((start, end, plain(text, styles.get(style).copied().unwrap_or_default())))
    })
}

/// The styles by name. The line `Format:` names the fields of the lines `Style:`.
fn styles(script: &str) -> HashMap<&str, Styles> {
    let mut positions = None;
    let mut styles = HashMap::new();
    for line in script.lines() {
        if let Some(names) = line.strip_prefix("Format:").filter(|_| positions.is_none()) {
            let position = |name: &str| names.split(',').position(|other| other.trim() == name);
            positions = position("Name").map(|name| (name, ["Bold", "Italic", "Underline"].map(position)));
        } else if let (Some(values), Some((name, flags))) = (line.strip_prefix("Style:"), positions) {
            let value = |at: usize| values.split(',').nth(at).map(str::trim);
            let is_set = |at: Option<usize>| at.and_then(value).is_some_and(|flag| !matches!(flag, "" | "0"));
            styles.extend(value(name).map(|name| (name, flags.map(is_set))));
        }
    }
    styles
}

/// A time as `0:01:02.34`, in milliseconds.
fn time(text: &str) -> Option<u64> {
    let (clock, hundredths) = text.trim().split_once('.')?;
    let seconds = clock
        .split(':')
        .try_fold(0_u64, |sum, part| sum.checked_mul(60)?.checked_add(part.parse::<u32>().ok()?.into()))?;
    let hundredths: u64 = hundredths.parse().ok().filter(|hundredths| *hundredths < 100)?;
    seconds.checked_mul(1000)?.checked_add(hundredths * 10)
}

/// The text of an event without override tags and drawings.
fn plain(text: &str, style: Styles) -> String {
    let mut plain = String::with_capacity(text.len());
    let (mut wanted, mut written) = (style, Styles::default());
    let mut is_drawing = false;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some((block, after)) = rest.strip_prefix('{').and_then(|block| block.split_once('}')) {
            for tag in block.split('\\').skip(1) {
                override_tag(tag.trim(), style, &mut wanted, &mut is_drawing);
            }
            rest = after;
            continue;
        }
        let (character, length) = match rest.get(..2) {
            Some("\\N" | "\\n") => ('\n', 2),
            Some("\\h") => ('\u{a0}', 2),
            _ => (character, character.len_utf8()),
        };
        rest = rest.get(length..).unwrap_or_default();
        if !is_drawing {
            // Styles begin at a letter, so that a blank line has none.
            let opens = !character.is_whitespace();
            let target = [0, 1, 2].map(|style| wanted[style] && (opens || written[style]));
            if target != written {
                change_styles(&mut plain, written, target);
                written = target;
            }
            plain.push(character);
        }
    }
    change_styles(&mut plain, written, Styles::default());
    // A blank line would end the cue.
    let lines: Vec<&str> = plain.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

/// Follows an override tag without its backslash: `p1` begins a drawing, `b1`, `i1` and `u1` begin a style,
/// and `r` returns to the event's style.
fn override_tag(tag: &str, style: Styles, wanted: &mut Styles, is_drawing: &mut bool) {
    let number = |letter: char| {
        let digits = tag.strip_prefix(letter)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)
    };
    let is_on = |digits: &str| digits.bytes().any(|digit| digit != b'0');
    if let Some(digits) = number('p') {
        *is_drawing = is_on(digits);
    }
    for ((letter, wanted), style) in TAGS.into_iter().zip(wanted.iter_mut()).zip(style) {
        if let Some(digits) = number(letter) {
            // Without a number, the tag returns to the style.
            *wanted = if digits.is_empty() { style } else { is_on(digits) };
        }
    }
    if tag.starts_with('r') {
        *wanted = style;
    }
}

/// Closes all written styles and opens the wanted ones, so that tags nest.
fn change_styles(text: &mut String, written: Styles, wanted: Styles) {
    let names =
        |styles: Styles| TAGS.into_iter().zip(styles).filter(|(_, is_set)| *is_set).map(|(tag, _)| tag);
    names(written).collect::<Vec<_>>().into_iter().rev().for_each(|tag| *text += &format!("</{tag}>"));
    names(wanted).for_each(|tag| *text += &format!("<{tag}>"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(event: &str) -> String {
        plain(event, Styles::default())
    }

    #[test]
    fn drawings_and_overrides_are_no_text() {
        for (event, expected) in [
            (r"Plain line", "Plain line"),
            (r"{\an7\pos(10,10)\p1}m 0 0 l 100 0 100 100 0 100{\p0}", ""),
            (r"{\p4}m 0 0 b 1 2 3 4 5 6", ""),
            (r"Sign {\p1}m 0 0 l 1 1{\p0}text", "Sign text"),
            (r"{\pos(1,2)\pbo5}here", "here"),
            (r"{\bord2\blur3\iclip(1,2,3,4)\fs20}big", "big"),
            (r"{\k20}ka{\k30}ra{\kf10}o{\ko5}ke", "karaoke"),
            (r"one\Ntwo\nthree\hfour", "one\ntwo\nthree\u{a0}four"),
            (r"one\N\N{\i1} {\i0}\Ntwo", "one\ntwo"),
            (r"{\i1}so{\i0} it {\b1\i1}is{\r} now", "<i>so</i> it <b><i>is</i></b> now"),
            (r"an open { brace", "an open { brace"),
            (r"{a comment}said", "said"),
            (r"{\b700}fat", "<b>fat</b>"),
        ] {
            assert_eq!(text(event), expected, "{event}");
        }
        assert_eq!(plain(r"all {\i0}but{\i} this", [false, true, false]), "<i>all </i>but <i>this</i>");
    }

    #[test]
    fn events_of_a_script() {
        let script = "[V4+ Styles]\n\
             Format: Name, Fontname, Bold, Italic, Underline\n\
             Style: Default,Arial,0,0,0\nStyle: Thought,Arial,0,-1,0\n\n\
             [Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n\
             Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,Note\n\
             Dialogue: 0,0:00:00.50,0:00:02.00,Default,,0,0,0,,One, two\n\
             Dialogue: 0,1:00:01.00,1:00:04.05,Thought,,0,0,0,,Hm\n\
             Dialogue: 0,0:00:01.0x,0:00:04.00,Default,,0,0,0,,Damaged\nDialogue: 0,short\n";
        let events: Vec<_> = dialogue(script).collect();
        assert_eq!(
            events,
            [(500, 2000, "One, two".to_owned()), (3_601_000, 3_604_050, "<i>Hm</i>".to_owned()),]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_accepted(script in "(?s)(Dialogue: |Style:|Format:|[0-9]:|,|\\{|\\}|\\\\[pbiuNr]|\\PC){0,60}") {
            for (_, _, text) in dialogue(&script) {
                prop_assert!(text.lines().all(|line| !line.is_empty()));
            }
        }
    }
}

//! The list of videos, one line each.

use std::{cmp::Reverse, collections::BTreeMap};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table};
use jiff::{SignedDuration, Timestamp};
use vidstreamx_job::{Attempt, Capacity, Record, Size, State};

use super::read::Video;
use crate::commands::format;

/// The fields of a line. A list can have very many lines, so a line does not keep its record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    when: Timestamp,
    state: String,
    key: String,
    attempts: usize,
    took: SignedDuration,
    size: String,
    cost: Option<f64>,
    why: String,
}

impl Line {
    #[must_use]
    pub(crate) fn new(video: &Video, now: Timestamp) -> Self {
        let record = &video.record;
        let share = video.progress.as_ref().map(|progress| share(progress.share));
        Self {
            when: record.updated_at,
            state: [Some(record.state.name().to_owned()), share]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            key: format::clean(record.source.key.as_str()),
            attempts: record.attempts.len(),
            took: took(record, now),
            size: record.attempts.last().map(size).unwrap_or_default(),
            cost: cost(record),
            why: format::clean(&why(video)),
        }
    }
}

/// Progress in per cent.
#[must_use]
pub(crate) fn share(share: f64) -> String {
    format!("{:.0} %", share.clamp(0.0, 1.0) * 100.0)
}

/// Duration from the job's creation or last restart to its end, or to now.
#[must_use]
pub(crate) fn took(record: &Record, now: Timestamp) -> SignedDuration {
    let start = record.restarts.last().map_or(record.created_at, |restart| restart.at);
    let end = if record.state.is_end() { record.updated_at } else { now };
    end.duration_since(start)
}

/// Cost of a job's tasks so far; `None` if no attempt has a cost.
#[must_use]
pub(crate) fn cost(record: &Record) -> Option<f64> {
    let costs = record.attempts.iter().filter_map(|attempt| attempt.cost_usd);
    costs.fold(None, |sum: Option<f64>, cost| Some(sum.unwrap_or_default() + cost))
}

fn size(attempt: &Attempt) -> String {
    let size = attempt.size.map(|Size { cpu, memory_mib, .. }| {
        format!("{}/{}", f64::from(cpu) / 1024.0, f64::from(memory_mib) / 1024.0)
    });
    let spot = attempt.capacity.filter(|capacity| *capacity == Capacity::Spot).map(|_| "spot".to_owned());
    [size, spot].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The reason of a job's end, or its current stage.
#[must_use]
pub(crate) fn why(video: &Video) -> String {
    let record = &video.record;
    if record.state.is_end() {
        return record.reason.clone().unwrap_or_default();
    }
    if let Some(progress) = &video.progress {
        let speed = progress.speed.map(|speed| format!("{speed:.1}x"));
        let end = progress.expected_end.map(|end| format!("ends about {} UTC", format::minute(end)));
        return [speed, end].into_iter().flatten().collect::<Vec<_>>().join(", ");
    }
    match record.attempts.last() {
        None => "waits for its first task".to_owned(),
        Some(Attempt { ended_at: Some(_), reason, .. }) => {
            let reason = reason.as_deref().unwrap_or("the task ended");
            format!("waits for its next task: {reason}")
        }
        Some(Attempt { task_arn: None, .. }) => "its task is starting".to_owned(),
        Some(_) => String::new(),
    }
}

const HEADER: [&str; 8] = ["WHEN (UTC)", "STATE", "KEY", "TRIES", "TOOK", "CPU/GIB", "COST", "WHY"];
const SIZE: usize = 5;
const WHY: usize = 7;
const NUMBERS: [usize; 4] = [3, 4, 5, 6];
/// Width of all columns except key and reason.
const OTHERS: usize = 66;
const OTHERS_NARROW: usize = 51;
/// Minimum terminal width to show the size column, and the year in times.
const WIDE: u16 = 120;
const SHORTEST_KEY: usize = 16;

/// Formats the lines as a table, newest first. Cuts them to the terminal's width, if there is a terminal.
#[must_use]
pub(crate) fn table(mut lines: Vec<Line>, width: Option<u16>) -> String {
    lines.sort_by_key(|line| Reverse(line.when));
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_truncation_indicator("…").set_header(HEADER);
    let mut longest_key = usize::MAX;
    let narrow = width.is_some_and(|width| width < WIDE);
    match width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            let others = if narrow { OTHERS_NARROW } else { OTHERS };
            // Key and reason share the rest of the width. The reason gets slightly more.
            longest_key = (usize::from(width).saturating_sub(others) * 2 / 5).max(SHORTEST_KEY);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for line in lines {
        let mut row = Row::from([
            if narrow { format::minute_of_year(line.when) } else { format::minute(line.when) },
            line.state,
            format::end_of(&line.key, longest_key),
            line.attempts.to_string(),
            format::duration(line.took),
            line.size,
            line.cost.map(format::money).unwrap_or_default(),
            line.why,
        ]);
        if width.is_some() {
            row.max_height(1);
        }
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        // Two spaces between columns, none before the first.
        column.set_padding((0, if index == WHY { 0 } else { 2 }));
        if NUMBERS.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if index == WHY {
            // Allows cuts within a word.
            column.set_delimiter('\0');
        } else {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if index == SIZE && narrow {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt()
}

/// The summary at the end of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    states: BTreeMap<&'static str, u64>,
    cost: f64,
    with_cost: u64,
    unreadable: u64,
}

impl Summary {
    /// Counts a video.
    pub(crate) fn add(&mut self, record: &Record) {
        *self.states.entry(record.state.name()).or_default() += 1;
        if let Some(cost) = cost(record) {
            self.cost += cost;
            self.with_cost += 1;
        }
    }

    /// Counts an unreadable record.
    pub(crate) const fn add_unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// The summary as one line. `since` is the start of the list's period.
    #[must_use]
    pub(crate) fn line(&self, since: Timestamp) -> String {
        let videos = self.states.values().sum();
        let mut line = format!("{} since {} UTC", format::count(videos, "video"), format::minute(since));
        let count = |state: State| {
            let name = state.name();
            self.states.get(name).map(|count| format!("{count} {name}"))
        };
        let states: Vec<_> = format::STATES.into_iter().filter_map(count).collect();
        if !states.is_empty() {
            line = format!("{line}: {}", states.join(", "));
        }
        if self.with_cost > 0 {
            let of = if self.with_cost < videos {
                format!(" (known for {})", self.with_cost)
            } else {
                String::new()
            };
            line = format!("{line}; about {}{of}", format::money(self.cost));
        }
        if self.unreadable > 0 {
            line = format!("{line}; {} could not be read", format::count(self.unreadable, "record"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr as _;

    use super::{super::samples, *};

    fn lines() -> Vec<Line> {
        samples::videos().iter().map(|video| Line::new(video, samples::NOW.parse().unwrap())).collect()
    }

    #[test]
    fn a_list_without_a_terminal_is_newest_first_and_not_cut() {
        insta::assert_snapshot!(table(lines(), None));
    }

    #[test]
    fn lines_are_cut_to_the_width_of_a_terminal() {
        for width in [80, 100, 140] {
            let table = table(lines(), Some(width));
            assert_eq!(table.lines().count(), lines().len() + 1, "{table}");
            assert!(table.lines().all(|line| line.width() <= usize::from(width)), "{table}");
            insta::assert_snapshot!(format!("terminal of {width}"), table);
        }
    }

    #[test]
    fn the_summary_counts_unknown_costs_and_unreadable_records() {
        let mut summary = Summary::default();
        let since = "2026-05-03T12:00:00Z".parse().unwrap();
        assert_eq!(summary.line(since), "0 videos since 2026-05-03 12:00 UTC");
        for video in samples::videos() {
            summary.add(&video.record);
        }
        summary.add_unreadable();
        assert_eq!(
            summary.line(since),
            "6 videos since 2026-05-03 12:00 UTC: 1 done, 3 running, 1 rejected, 1 failed; about $0.0500 (known for 2); 1 record \
             could not be read"
        );
    }
}

//! The start of a period: a span before now, or a date.

use std::str::FromStr;

use jiff::{Span, Timestamp, civil, tz::TimeZone};

/// The start as the user wrote it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    /// A span before now.
    Ago(Span),
    /// A point in time.
    At(Timestamp),
}

/// The text is neither a span nor a date.
#[derive(Debug, thiserror::Error)]
#[error("it should be a span like 90m, 24h or 7d, or a date in UTC like 2026-05-04 or 2026-05-04T10:00")]
pub(crate) struct InvalidSince;

impl Since {
    /// The start of the period. If a span is too long, this is the earliest [`Timestamp`].
    #[must_use]
    pub(crate) fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(span) => now
                .to_zoned(TimeZone::UTC)
                .checked_sub(span.abs())
                .map_or(Timestamp::MIN, |moment| moment.timestamp()),
        }
    }
}

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, InvalidSince> {
        let text = text.trim();
        let in_utc = |moment: civil::DateTime| Some(moment.to_zoned(TimeZone::UTC).ok()?.timestamp());
        let moment = text.parse::<Timestamp>().ok();
        if let Some(moment) = moment.or_else(|| text.parse().ok().and_then(in_utc)) {
            return Ok(Self::At(moment));
        }
        text.parse().map(Self::Ago).map_err(|_| InvalidSince)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_end_now_and_dates_are_in_utc() {
        let now = "2026-05-04T12:00:00Z".parse().unwrap();
        for (text, moment) in [
            ("90m", "2026-05-04T10:30:00Z"),
            ("24h", "2026-05-03T12:00:00Z"),
            ("7d", "2026-04-27T12:00:00Z"),
            ("1 day 12 hours ago", "2026-05-03T00:00:00Z"),
            ("2mo", "2026-03-04T12:00:00Z"),
            ("2026-05-01", "2026-05-01T00:00:00Z"),
            ("2026-05-01T10:00", "2026-05-01T10:00:00Z"),
            ("2026-05-01T10:00:00+02:00", "2026-05-01T08:00:00Z"),
        ] {
            assert_eq!(text.parse::<Since>().unwrap().moment(now).to_string(), moment, "{text}");
        }
        assert_eq!("19998y".parse::<Since>().unwrap().moment(now), Timestamp::MIN);
        for bad in ["", "24", "yesterday", "2026-13-01"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
    }
}

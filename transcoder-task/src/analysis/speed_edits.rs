//! Edits of another speed: QuickTime's edit lists can play parts of a track slower or faster, or hold a
//! frame. FFmpeg plays all of them at normal speed, so the uploader is told what is lost.

/// The parts of an edit list that do not play at normal speed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SpeedEdits {
    /// Seconds that play at another speed, and the speed of the first such part (0.5 is half speed).
    pub(crate) changed: Option<(f64, f64)>,
    /// Seconds during which one frame is held (speed 0, a dwell).
    pub(crate) held_seconds: f64,
}

impl SpeedEdits {
    /// Parses the body of an `elst` box (ISO/IEC 14496-12, 8.6.6). Damaged entries are ignored.
    pub(super) fn parse(elst: &[u8], movie_timescale: u32) -> Self {
        let Some((&[version, ..], entries)) = elst.split_first_chunk::<8>() else { return Self::default() };
        let seconds = |ticks: u64| ticks as f64 / f64::from(movie_timescale.max(1));
        let mut edits = Self::default();
        let mut add = |ticks: u64, media_time: i64, rate: [u8; 4]| {
            let speed = f64::from(i32::from_be_bytes(rate)) / 65_536.0;
            // An empty edit is a pause, whatever its speed.
            if media_time < 0 || speed == 1.0 {
                return;
            }
            if speed == 0.0 {
                edits.held_seconds += seconds(ticks);
            } else {
                let (sum, first) = edits.changed.unwrap_or((0.0, speed));
                edits.changed = Some((sum + seconds(ticks), first));
            }
        };
        if version == 1 {
            for entry in entries.as_chunks::<20>().0 {
                let [ticks, time] = [0, 8].map(|at| {
                    entry[at..at + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
                });
                add(ticks, time as i64, [entry[16], entry[17], entry[18], entry[19]]);
            }
        } else {
            for [a, b, c, d, e, f, g, h, rate @ ..] in entries.as_chunks::<12>().0 {
                let ticks = u32::from_be_bytes([*a, *b, *c, *d]);
                add(ticks.into(), i32::from_be_bytes([*e, *f, *g, *h]).into(), *rate);
            }
        }
        edits
    }

    /// Warnings about a track (`the video`, `audio track 1`).
    pub(crate) fn warnings(self, track: &str) -> impl Iterator<Item = String> + use<> {
        let changed = self.changed.map(|(seconds, speed)| {
            format!(
                "the edit list plays {seconds:.1} s of {track} at {speed:.2} times its speed; it was published at \
                 normal speed"
            )
        });
        let held = (self.held_seconds > 0.0).then(|| {
            format!(
                "the edit list holds a frame of {track} for {:.1} s; it was published without this pause",
                self.held_seconds
            )
        });
        changed.into_iter().chain(held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elst(entries: &[(u32, i32, u32)]) -> Vec<u8> {
        let head = [0, 0, 0, 0].into_iter().chain((entries.len() as u32).to_be_bytes());
        let entries = entries.iter().flat_map(|(ticks, time, rate)| {
            [ticks.to_be_bytes(), time.to_be_bytes(), rate.to_be_bytes()].concat()
        });
        head.chain(entries).collect()
    }

    #[test]
    fn parts_of_another_speed_are_found() {
        let one = 0x1_0000;
        assert_eq!(SpeedEdits::parse(&elst(&[(1000, -1, 0), (4000, 0, one)]), 1000), SpeedEdits::default());
        let edits = SpeedEdits::parse(
            &elst(&[(2000, 0, one), (4000, 1000, one / 2), (1000, 0, one * 2), (3000, 9, 0)]),
            1000,
        );
        assert_eq!(edits, SpeedEdits { changed: Some((5.0, 0.5)), held_seconds: 3.0 });
        assert_eq!(
            edits.warnings("the video").collect::<Vec<_>>(),
            [
                "the edit list plays 5.0 s of the video at 0.50 times its speed; it was published at normal speed",
                "the edit list holds a frame of the video for 3.0 s; it was published without this pause"
            ]
        );
        let long: Vec<u8> = [
            &[1, 0, 0, 0, 0, 0, 0, 1][..],
            &4000_u64.to_be_bytes(),
            &0_i64.to_be_bytes(),
            &(one / 4).to_be_bytes(),
        ]
        .concat();
        assert_eq!(SpeedEdits::parse(&long, 1000).changed, Some((4.0, 0.25)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted(elst in prop::collection::vec(any::<u8>(), 0..100), timescale: u32) {
            let edits = SpeedEdits::parse(&elst, timescale);
            prop_assert!(edits.held_seconds.is_finite() && edits.warnings("it").count() <= 2);
        }
    }
}

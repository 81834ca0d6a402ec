//! Samples of movie fragments (ISO/IEC 14496-12, 8.8).

use mp4_atom::{Moof, Moov, Traf};

/// `sample_is_non_sync_sample` (ISO/IEC 14496-12, 8.8.3.1).
pub const IS_NON_SYNC: u32 = 0x0001_0000;

/// The fragment does not have exactly one track, or that track has no decoding time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The fragment does not have exactly one track.
    #[error("a fragment without exactly one track")]
    Tracks,
    /// The fragment has no decoding time (`tfdt`).
    #[error("a fragment without a decoding time")]
    NoTime,
}

/// Default values of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SampleDefaults {
    /// Duration in ticks.
    pub duration: u32,
    /// Size in bytes.
    pub size: u32,
    /// Flags, including [`IS_NON_SYNC`].
    pub flags: u32,
}

impl SampleDefaults {
    /// The defaults of an init segment's first track (`trex`).
    #[must_use]
    pub fn of_init(moov: &Moov) -> Self {
        let trex = moov.mvex.as_ref().and_then(|mvex| mvex.trex.first());
        trex.map_or_else(Self::default, |trex| Self {
            duration: trex.default_sample_duration,
            size: trex.default_sample_size,
            flags: trex.default_sample_flags,
        })
    }

    /// The defaults of a track fragment (`tfhd`). `self` provides the missing values.
    #[must_use]
    pub fn of_fragment(self, traf: &Traf) -> Self {
        Self {
            duration: traf.tfhd.default_sample_duration.unwrap_or(self.duration),
            size: traf.tfhd.default_sample_size.unwrap_or(self.size),
            flags: traf.tfhd.default_sample_flags.unwrap_or(self.flags),
        }
    }
}

/// A sample of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Decoding time in ticks.
    pub decoded: u64,
    /// Duration in ticks, from this sample's decoding time to that of the next sample.
    pub duration: u32,
    /// Size in bytes.
    pub size: u32,
    /// Whether decoding can start here.
    pub is_sync: bool,
    /// Presentation time minus decoding time in ticks.
    pub composition_offset: i64,
}

impl Sample {
    /// Presentation time in ticks.
    #[must_use]
    pub const fn presented(&self) -> u64 {
        self.decoded.saturating_add_signed(self.composition_offset)
    }
}

/// The only track fragment of a movie fragment, and its first decoding time in ticks.
///
/// # Errors
/// There is not exactly one track, or it has no decoding time.
pub fn track_fragment(moof: &Moof) -> Result<(&Traf, u64), FragmentError> {
    let [traf] = moof.traf.as_slice() else { return Err(FragmentError::Tracks) };
    let tfdt = traf.tfdt.as_ref().ok_or(FragmentError::NoTime)?;
    Ok((traf, tfdt.base_media_decode_time))
}

/// The samples of a track fragment. `defaults` are those of the init segment.
pub fn samples(
    traf: &Traf,
    first_decoded: u64,
    defaults: SampleDefaults,
) -> impl Iterator<Item = Sample> + '_ {
    let defaults = defaults.of_fragment(traf);
    let mut decoded = first_decoded;
    traf.trun.iter().flat_map(|trun| trun.samples.iter()).map(move |entry| {
        let sample = Sample {
            decoded,
            duration: entry.duration.unwrap_or(defaults.duration),
            size: entry.size.unwrap_or(defaults.size),
            is_sync: entry.flags.unwrap_or(defaults.flags) & IS_NON_SYNC == 0,
            composition_offset: entry.cts.unwrap_or(0),
        };
        decoded = decoded.saturating_add(u64::from(sample.duration));
        sample
    })
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Tfdt, Trun, TrunEntry};

    use super::*;

    #[test]
    fn values_come_from_sample_then_fragment_then_init_segment() {
        let mut traf = Traf::default();
        traf.tfhd.default_sample_size = Some(20);
        let own = TrunEntry { duration: Some(5), size: Some(7), flags: Some(IS_NON_SYNC), cts: Some(-2) };
        let none = TrunEntry { duration: None, size: None, flags: None, cts: None };
        traf.trun = vec![Trun { samples: vec![none, own, none].into(), ..Trun::default() }];
        traf.tfdt = Some(Tfdt { base_media_decode_time: 100 });
        let moof = Moof { traf: vec![traf], ..Moof::default() };
        let (traf, start) = track_fragment(&moof).unwrap();
        let defaults = SampleDefaults { duration: 10, size: 1, flags: 0 };
        let of = |decoded, duration, size, is_sync, composition_offset| Sample {
            decoded,
            duration,
            size,
            is_sync,
            composition_offset,
        };
        let expected = [of(100, 10, 20, true, 0), of(110, 5, 7, false, -2), of(115, 10, 20, true, 0)];
        assert_eq!(samples(traf, start, defaults).collect::<Vec<_>>(), expected);
        assert_eq!(expected[1].presented(), 108);
    }

    #[test]
    fn a_fragment_needs_one_track_with_a_time() {
        let mut moof = Moof::default();
        assert_eq!(track_fragment(&moof).unwrap_err(), FragmentError::Tracks);
        moof.traf.push(Traf::default());
        assert_eq!(track_fragment(&moof).unwrap_err(), FragmentError::NoTime);
    }
}

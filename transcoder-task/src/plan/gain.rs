//! The gain that brings an audio track to the profile's loudness.

/// Highest true peak in dBTP, with headroom for AAC's coding errors (EBU R128 s2, 4.3).
pub(crate) const HIGHEST_PEAK_DBTP: f64 = -1.0;
/// Largest gain in dB. A track that needs more is silence with noise.
const MOST_GAIN_DB: f64 = 30.0;
/// A track below this integrated loudness is silence (the absolute gate of ITU-R BS.1770).
const SILENCE_LUFS: f64 = -70.0;

/// The measured loudness of a track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Loudness {
    /// Integrated loudness in LUFS.
    pub(crate) integrated_lufs: f64,
    /// True peak in dBTP.
    pub(crate) true_peak_dbtp: f64,
}

/// A change of a track's level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gain {
    /// Gain in dB.
    pub(crate) gain_db: f64,
    /// True if a limiter must prevent clipping.
    pub(crate) limited: bool,
}

impl Gain {
    /// The gain from a measured loudness to a target; `None` for silence.
    #[must_use]
    pub(crate) fn new(measured: Loudness, target_lufs: f64) -> Option<Self> {
        if measured.integrated_lufs <= SILENCE_LUFS {
            return None;
        }
        let gain_db = (target_lufs - measured.integrated_lufs).min(MOST_GAIN_DB);
        // Rounded, so that the plan is the same on other processors.
        let gain_db = (gain_db * 100.0).round() / 100.0;
        Some(Self { gain_db, limited: measured.true_peak_dbtp + gain_db > HIGHEST_PEAK_DBTP })
    }
}

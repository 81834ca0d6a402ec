//! The gain that brings an audio track to the profile's loudness.

/// Highest true peak: what AAC adds by its errors must not clip (EBU R128 s2, 4.3).
pub(crate) const HIGHEST_PEAK_DBTP: f64 = -1.0;
/// Most that is added: beyond it is silence with noise in it.
const MOST_GAIN_DB: f64 = 30.0;
/// Quieter than this over all is silence (the absolute gate of ITU-R BS.1770).
const SILENCE_LUFS: f64 = -70.0;

/// How loud a track is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loudness {
    /// Over all of it, in LUFS.
    pub integrated_lufs: f64,
    /// In dB under full scale.
    pub true_peak_dbtp: f64,
}

/// A change of a track's level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// In dB.
    pub gain_db: f64,
    /// Whether peaks would clip and must be held down.
    pub limited: bool,
}

impl Gain {
    /// From what is there to what is wanted; `None` for silence.
    pub fn new(measured: Loudness, target_lufs: f64) -> Option<Self> {
        if measured.integrated_lufs <= SILENCE_LUFS {
            return None;
        }
        let gain_db = (target_lufs - measured.integrated_lufs).min(MOST_GAIN_DB);
        // In steps, so that another processor's rounding gives the same.
        let gain_db = (gain_db * 100.0).round() / 100.0;
        Some(Self { gain_db, limited: measured.true_peak_dbtp + gain_db > HIGHEST_PEAK_DBTP })
    }
}

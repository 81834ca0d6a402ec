//! The model of a stream for all manifests: renditions with segments, rates and labels, and the names of
//! files.

use crate::analysis::media::Role;

use super::captions::Captions;

/// A published segment, with the data that manifests need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Published {
    /// Earliest presentation time of its samples in ticks. With B frames this is not the first sample's.
    pub(crate) start_ticks: u64,
    /// Sum of the durations of its samples in ticks.
    pub(crate) duration_ticks: u64,
    /// Number of samples (frames).
    pub(crate) samples: usize,
    /// Number of samples that repeat the frame before them.
    pub(crate) repeats: usize,
    /// Time in ticks that the repeats at its end last.
    pub(crate) repeated_ticks: u64,
    pub(crate) bytes: u64,
    /// Bytes from its start to the end of its first sample. For video, they decode to one frame. 0 for
    /// subtitles.
    pub(crate) key_bytes: u64,
}

/// The segments of a rendition and its clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Timeline {
    /// Ticks per second; 0 before the init segment is known.
    pub(crate) timescale: u32,
    /// In order, from number 0.
    pub(crate) segments: Vec<Published>,
}

impl Timeline {
    /// A copy with only the first `segments` segments.
    #[must_use]
    pub(crate) fn first(&self, segments: usize) -> Self {
        Self { segments: self.segments.iter().take(segments).copied().collect(), ..*self }
    }

    /// Converts ticks to seconds.
    #[must_use]
    pub(crate) fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.timescale.max(1))
    }

    #[must_use]
    pub(crate) fn duration_seconds(&self) -> f64 {
        self.seconds(self.segments.iter().map(|segment| segment.duration_ticks).sum())
    }

    /// Duration of the longest segment.
    #[must_use]
    pub(crate) fn longest_seconds(&self) -> f64 {
        self.seconds(self.segments.iter().map(|segment| segment.duration_ticks).max().unwrap_or(0))
    }

    /// End of the last segment.
    #[must_use]
    pub(crate) fn end_seconds(&self) -> f64 {
        self.seconds(self.segments.last().map_or(0, |last| last.start_ticks + last.duration_ticks))
    }

    /// Frames per second of the segment with the most, as RFC 8216 asks for the highest rate. Not the
    /// average: the last frame of a segment may last long. Very short segments count only if there is no
    /// other.
    #[must_use]
    pub(crate) fn frame_rate(&self) -> f64 {
        const SHORTEST_SECONDS: f64 = 0.25;
        let of = |segment: &Published| segment.samples as f64 / self.seconds(segment.duration_ticks.max(1));
        let fastest = |least_seconds: f64| {
            let long = self.segments.iter().filter(|one| self.seconds(one.duration_ticks) >= least_seconds);
            long.map(of).max_by(f64::total_cmp)
        };
        fastest(SHORTEST_SECONDS).or_else(|| fastest(0.0)).unwrap_or(0.0)
    }

    /// Rates of the media playlist.
    #[must_use]
    pub(crate) fn rates(&self, target_seconds: u64) -> Rates {
        self.measured(target_seconds, |segment| segment.bytes)
    }

    /// Rates of the I-frame playlist.
    #[must_use]
    pub(crate) fn key_rates(&self, target_seconds: u64) -> Rates {
        self.measured(target_seconds, |segment| segment.key_bytes)
    }

    /// Rates of the bytes that `bytes` returns. The peak is that of RFC 8216 section 4.1: the highest rate of
    /// consecutive segments that last between 0.5 and 1.5 target durations. A very short last segment counts
    /// only together with the previous one.
    fn measured(&self, target_seconds: u64, bytes: impl Fn(&Published) -> u64) -> Rates {
        let bits = |bytes: u64, ticks: u64| {
            let of_a_second = u128::from(bytes) * 8 * u128::from(self.timescale);
            if ticks == 0 { 0 } else { of_a_second.div_ceil(ticks.into()) as u64 }
        };
        let (shortest, longest) = (target_seconds as f64 * 0.5, target_seconds as f64 * 1.5);
        let mut peak = 0;
        for first in 0..self.segments.len() {
            let (mut total, mut ticks) = (0, 0);
            for segment in self.segments.iter().skip(first) {
                total += bytes(segment);
                ticks += segment.duration_ticks;
                match self.seconds(ticks) {
                    seconds if seconds > longest => break,
                    seconds if seconds >= shortest => peak = peak.max(bits(total, ticks)),
                    _ => {}
                }
            }
        }
        let total = |of: &dyn Fn(&Published) -> u64| self.segments.iter().map(of).sum();
        let average = bits(total(&bytes), total(&|segment| segment.duration_ticks));
        Rates { peak: peak.max(average), average }
    }
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rates {
    /// Highest rate over about one segment; at least the average.
    pub(crate) peak: u64,
    /// Rate over all segments.
    pub(crate) average: u64,
}

impl Rates {
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { peak: self.peak + other.peak, average: self.average + other.average }
    }

    pub(crate) fn highest<'a>(renditions: impl Iterator<Item = &'a Rendition>) -> Self {
        renditions.map(|rendition| rendition.rates).fold(Self::default(), |most, rates| Self {
            peak: most.peak.max(rates.peak),
            average: most.average.max(rates.average),
        })
    }
}

/// All renditions of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Presentation {
    /// In any order; empty for audio alone.
    pub(crate) rungs: Vec<Variant>,
    /// One per source track, in the source's order.
    pub(crate) audio: Vec<AudioTrack>,
    /// One per source track, in the source's order.
    pub(crate) subtitles: Vec<TextRendition>,
}

/// A folder of segments with their playlist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rendition {
    /// Relative to the manifests: `<job id>/<plan id>/video/1080p`. Used in URLs without escaping.
    pub(crate) folder: String,
    /// RFC 6381 string of this rendition; empty for subtitles.
    pub(crate) codecs: String,
    pub(crate) timeline: Timeline,
    /// Measured rates; planned rates while the stream grows.
    pub(crate) rates: Rates,
}

/// A rung.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variant {
    pub(crate) rendition: Rendition,
    /// Width in pixels.
    pub(crate) width: u32,
    /// Height in pixels.
    pub(crate) height: u32,
    /// Average frames per second; 0 if unknown.
    pub(crate) frame_rate: f64,
    /// Closed captions in its stream.
    pub(crate) captions: Captions,
    /// Rates of its I-frame playlist, if it exists.
    pub(crate) key_rates: Option<Rates>,
}

/// A source's audio track.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AudioTrack {
    /// Name in the player's menu, unique among audio tracks (see [`crate::plan::language::labels`]).
    pub(crate) label: String,
    /// RFC 5646 tag.
    pub(crate) language: Option<String>,
    pub(crate) role: Role,
    /// Mono or stereo, which every player supports.
    pub(crate) stereo: AudioLayout,
    /// The surround layout, if any.
    pub(crate) surround: Option<AudioLayout>,
}

/// An audio track in one channel layout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AudioLayout {
    pub(crate) rendition: Rendition,
    /// Number of channels.
    pub(crate) channels: u32,
    /// In Hz.
    pub(crate) sample_rate: u32,
}

/// A subtitle track, in segments and as one file in the same folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextRendition {
    /// The WebVTT segments.
    pub(crate) rendition: Rendition,
    /// Name in the player's menu, unique among subtitle tracks.
    pub(crate) label: String,
    /// RFC 5646 tag.
    pub(crate) language: Option<String>,
    /// A default track is shown unless the viewer turns it off. Only the first default track counts. A forced
    /// track holds only translations that every viewer needs, for example of signs.
    pub(crate) role: Role,
}

/// Video codecs, the most widely supported first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Supported everywhere.
    H264,
    /// Supported by licensed hardware.
    Hevc,
    /// Supported by newer browsers and devices.
    Av1,
}

impl Variant {
    #[must_use]
    pub(crate) fn family(&self) -> Family {
        match self.rendition.codecs.split('.').next() {
            Some("hvc1" | "hev1") => Family::Hevc,
            Some("av01") => Family::Av1,
            _ => Family::H264,
        }
    }
}

/// The closed captions that all of these rungs have, so that a player may switch between them.
#[must_use]
pub(crate) fn common_captions(rungs: &[&Variant]) -> Captions {
    let all = rungs.iter().map(|rung| rung.captions).reduce(|all, captions| all & captions);
    all.unwrap_or(Captions::NONE)
}

impl Presentation {
    /// The rungs by codec, the most supported first, each from large to small.
    #[must_use]
    pub(crate) fn sorted_rungs(&self) -> Vec<&Variant> {
        let mut rungs: Vec<&Variant> = self.rungs.iter().collect();
        rungs.sort_by_key(|rung| {
            let pixels = u64::from(rung.width) * u64::from(rung.height);
            (rung.family(), std::cmp::Reverse((pixels, rung.rendition.rates.peak)))
        });
        rungs
    }

    /// The track that plays unless the viewer chooses another, then the others in the source's order. Some
    /// players ignore the default flag and take the first track (Shaka Player 5 does so among tracks with the
    /// same number of channels).
    ///
    /// It is the first track with the source's default flag, or else the first track. Audio descriptions and
    /// commentaries are chosen last: files often flag them, too, but only their own listeners want them.
    #[must_use]
    pub(crate) fn sorted_audio(&self) -> Vec<&AudioTrack> {
        let mut audio: Vec<&AudioTrack> = self.audio.iter().collect();
        let preference = |(_, track): &(usize, &&AudioTrack)| {
            (track.role.describes_video(), track.role.comment, !track.role.default)
        };
        let default = audio.iter().enumerate().min_by_key(preference).map_or(0, |(index, _)| index);
        if let Some(up_to_default) = audio.get_mut(..=default) {
            up_to_default.rotate_right(1);
        }
        audio
    }
}

/// Collects the output of `write`.
pub(crate) fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut buffer = Vec::new();
    // Writing to memory cannot fail.
    let _ = write(&mut buffer);
    buffer
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_rate_is_that_of_the_fastest_segment() {
        let rate = |segments: &[(usize, u64)]| {
            let one = |&(samples, duration_ticks): &(usize, u64)| Published {
                start_ticks: 0,
                duration_ticks,
                samples,
                repeats: 0,
                repeated_ticks: 0,
                bytes: 0,
                key_bytes: 0,
            };
            Timeline { timescale: 1000, segments: segments.iter().map(one).collect() }.frame_rate()
        };
        assert_eq!(rate(&[(12, 480), (100, 4000), (10, 600)]), 25.0, "the last frame lasts long");
        assert_eq!(rate(&[(100, 4000), (1, 1)]), 25.0, "one frame at the end");
        assert_eq!(rate(&[(2, 100)]), 20.0);
        assert_eq!(rate(&[]), 0.0);
    }
}

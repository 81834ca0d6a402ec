//! The model of a stream for all manifests: renditions with their segments, rates, labels, and the names of files.

/// A segment as manifests need it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Published {
    /// When the first of its samples is shown, on the rendition's clock: with frames of several lengths and B
    /// frames that is not when the first is decoded.
    pub(crate) start_ticks: u64,
    /// From there to the end of the sample that is shown last.
    pub(crate) duration_ticks: u64,
    /// How many samples (frames).
    pub(crate) samples: usize,
    /// Its size.
    pub(crate) bytes: u64,
    /// From its beginning to the end of its first sample: on their own they decode to one picture. 0 for what
    /// has no pictures.
    pub(crate) key_bytes: u64,
}

/// The segments of a rendition in order, and its clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Timeline {
    /// Ticks per second; 0 before anything is known.
    pub(crate) timescale: u32,
    /// From number 0.
    pub(crate) segments: Vec<Published>,
}

impl Timeline {
    /// The first segments alone.
    pub(crate) fn first(&self, segments: usize) -> Self {
        Self { segments: self.segments.iter().take(segments).copied().collect(), ..*self }
    }

    /// An instant or a length on this clock, in seconds.
    pub(crate) fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.timescale.max(1))
    }

    /// Of all segments.
    pub(crate) fn duration_seconds(&self) -> f64 {
        self.seconds(self.segments.iter().map(|segment| segment.duration_ticks).sum())
    }

    /// Of the longest segment.
    pub(crate) fn longest_seconds(&self) -> f64 {
        self.seconds(self.segments.iter().map(|segment| segment.duration_ticks).max().unwrap_or(0))
    }

    /// When the last segment's last sample ends.
    pub(crate) fn end_seconds(&self) -> f64 {
        self.seconds(self.segments.last().map_or(0, |last| last.start_ticks + last.duration_ticks))
    }

    /// What fetching it takes.
    pub(crate) fn rates(&self, target_seconds: u64) -> Rates {
        self.measured(target_seconds, |segment| segment.bytes)
    }

    /// What fetching its I-frame playlist takes.
    pub(crate) fn key_rates(&self, target_seconds: u64) -> Rates {
        self.measured(target_seconds, |segment| segment.key_bytes)
    }

    /// The peak is that of RFC 8216 section 4.1: of any segments in a row that last between half and one and a
    /// half of the target duration, so that a last segment of a frame or two counts only with the one before.
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
    /// Of the busiest stretch of about a segment's length; at least the average.
    pub(crate) peak: u64,
    /// Over all segments.
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

/// Everything that a viewer can choose from.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Presentation {
    /// In any order; none for audio alone.
    pub(crate) rungs: Vec<Variant>,
    /// One per source track, in the source's order.
    pub(crate) audio: Vec<AudioTrack>,
    /// One per source track, in the source's order.
    pub(crate) subtitles: Vec<SubtitlesTrack>,
}

/// A folder of segments with their playlist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rendition {
    /// Relative to the manifests: `0123/video/1080p`. Part of addresses as it is.
    pub(crate) folder: String,
    /// RFC 6381, of this rendition alone; empty for subtitles.
    pub(crate) codecs: String,
    /// What there is to play.
    pub(crate) timeline: Timeline,
    /// Measured, or planned while it grows.
    pub(crate) rates: Rates,
}

/// A rung.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variant {
    /// The picture alone.
    pub(crate) rendition: Rendition,
    /// In pixels.
    pub(crate) width: u32,
    /// In pixels.
    pub(crate) height: u32,
    /// On average; 0 if unknown.
    pub(crate) frame_rate: f64,
    /// Of its I-frame playlist, once there is one.
    pub(crate) key_rates: Option<Rates>,
}

/// A source's audio track.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AudioTrack {
    /// Shown to people; unique among audio (see [`crate::plan::language::labels`]).
    pub(crate) label: String,
    /// RFC 5646.
    pub(crate) language: Option<String>,
    /// Plays if nobody chooses; the first such one counts, or else the first.
    pub(crate) default: bool,
    /// In one or two channels: what every player can play.
    pub(crate) stereo: AudioLayout,
    /// In more channels.
    pub(crate) surround: Option<AudioLayout>,
}

/// An audio track in one channel layout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AudioLayout {
    /// The sound alone.
    pub(crate) rendition: Rendition,
    /// How many.
    pub(crate) channels: u32,
    /// In Hz.
    pub(crate) sample_rate: u32,
}

/// A subtitle track: its folder holds a playlist with segments, and the whole of it as one file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SubtitlesTrack {
    /// Of WebVTT.
    pub(crate) rendition: Rendition,
    /// Shown to people; unique among subtitles.
    pub(crate) label: String,
    /// RFC 5646.
    pub(crate) language: Option<String>,
    /// Shown if nobody chooses; at most the first such one is.
    pub(crate) default: bool,
    /// Only what everybody must read, such as the translation of signs.
    pub(crate) forced: bool,
}

/// Video codecs in the order of how many players take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Played everywhere.
    H264,
    /// Played where the hardware is licensed.
    Hevc,
    /// Played by newer browsers and devices.
    Av1,
}

impl Variant {
    /// Its codec.
    pub(crate) fn family(&self) -> Family {
        match self.rendition.codecs.split('.').next() {
            Some("hvc1" | "hev1") => Family::Hevc,
            Some("av01") => Family::Av1,
            _ => Family::H264,
        }
    }
}

impl Presentation {
    /// The rungs by codec, most played first, and the largest first within one.
    pub(crate) fn sorted_rungs(&self) -> Vec<&Variant> {
        let mut rungs: Vec<&Variant> = self.rungs.iter().collect();
        rungs.sort_by_key(|rung| {
            let pixels = u64::from(rung.width) * u64::from(rung.height);
            (rung.family(), std::cmp::Reverse((pixels, rung.rendition.rates.peak)))
        });
        rungs
    }

    /// The one that plays if nobody chooses, then the others in the source's order. Players that do not look
    /// at what is marked as default (Shaka Player 5, where channel counts match) take the first.
    pub(crate) fn sorted_audio(&self) -> Vec<&AudioTrack> {
        let mut audio: Vec<&AudioTrack> = self.audio.iter().collect();
        let default = audio.iter().position(|sound| sound.default).unwrap_or(0);
        if let Some(up_to_default) = audio.get_mut(..=default) {
            up_to_default.rotate_right(1);
        }
        audio
    }
}

/// The address of a media segment, next to its playlist.
pub(crate) fn segment_name(number: usize) -> String {
    format!("seg-{number:05}.m4s")
}

/// The address of a subtitle segment, next to its playlist.
pub(crate) fn text_segment_name(number: usize) -> String {
    format!("seg-{number:05}.vtt")
}

/// The address of the init segment, next to its playlist.
pub(crate) const INIT_NAME: &str = "init.mp4";
/// The address of a media playlist in its rendition's folder.
pub(crate) const MEDIA_NAME: &str = "index.m3u8";
/// The address of an I-frame playlist in its rung's folder.
pub(crate) const I_FRAMES_NAME: &str = "iframes.m3u8";
/// The address of a subtitle track as one file in its folder.
pub(crate) const TEXT_NAME: &str = "subtitles.vtt";

/// What is written into memory.
pub(crate) fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut buffer = Vec::new();
    // Writing to memory does not fail.
    let _ = write(&mut buffer);
    buffer
}

#[cfg(test)]
pub(crate) mod samples;

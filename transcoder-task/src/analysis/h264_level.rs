//! The H.264 level that a track needs.
//!
//! Some encoders state a level far above the one that the track needs: 6.2 for 640 × 360. Decoders of phones
//! and televisions refuse a track by its stated level.

use mp4_atom::Avcc;

use super::h264_set::SequenceSet;

/// The highest level that practically all devices decode: 1080p. Lower statements stay, even if they are too
/// high.
const EVERYWHERE: u8 = 41;
/// Most frames in a decoder's buffer (ITU-T H.264, A.3.1).
const MOST_BUFFERED: u32 = 16;

/// The limits of a level (ITU-T H.264, table A-1).
struct Level {
    /// `level_idc`: ten times the level.
    idc: u8,
    macroblocks_per_second: u64,
    frame_macroblocks: u64,
    buffered_macroblocks: u64,
    /// In kbit/s, for the profiles Baseline and Main; High has a quarter more.
    kbps: u64,
}

const fn level(
    idc: u8,
    macroblocks_per_second: u64,
    frame_macroblocks: u64,
    buffered_macroblocks: u64,
    kbps: u64,
) -> Level {
    Level { idc, macroblocks_per_second, frame_macroblocks, buffered_macroblocks, kbps }
}

const LEVELS: [Level; 19] = [
    level(10, 1_485, 99, 396, 64),
    level(11, 3_000, 396, 900, 192),
    level(12, 6_000, 396, 2_376, 384),
    level(13, 11_880, 396, 2_376, 768),
    level(20, 11_880, 396, 2_376, 2_000),
    level(21, 19_800, 792, 4_752, 4_000),
    level(22, 20_250, 1_620, 8_100, 4_000),
    level(30, 40_500, 1_620, 8_100, 10_000),
    level(31, 108_000, 3_600, 18_000, 14_000),
    level(32, 216_000, 5_120, 20_480, 20_000),
    level(40, 245_760, 8_192, 32_768, 20_000),
    level(41, 245_760, 8_192, 32_768, 50_000),
    level(42, 522_240, 8_704, 34_816, 50_000),
    level(50, 589_824, 22_080, 110_400, 135_000),
    level(51, 983_040, 36_864, 184_320, 240_000),
    level(52, 2_073_600, 36_864, 184_320, 240_000),
    level(60, 4_177_920, 139_264, 696_320, 240_000),
    level(61, 8_355_840, 139_264, 696_320, 480_000),
    level(62, 16_711_680, 139_264, 696_320, 800_000),
];

/// Properties of a track's samples that decide its level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Most frames in any second.
    pub(super) frames_per_second: u64,
    /// Highest rate in bits per second.
    pub(super) bitrate: u64,
    /// Most frames that are stored before a frame and shown after it.
    pub(super) reordered: u32,
}

/// The level to state instead of the track's own; `None` if its own one is right or accepted everywhere, or
/// if its parameter sets cannot be read.
#[must_use]
pub(super) fn lower_level(avcc: &Avcc, demand: Demand) -> Option<u8> {
    let sets: Vec<SequenceSet> =
        avcc.sequence_parameter_sets.iter().map(|set| SequenceSet::parse(set)).collect::<Option<_>>()?;
    let stated = sets.iter().map(|set| set.level).max()?.max(avcc.avc_level_indication);
    if stated <= EVERYWHERE {
        return None;
    }
    let needed =
        sets.iter().map(|set| needed_level(set, demand)).try_fold(0, |most, level| Some(most.max(level?)));
    needed.filter(|needed| *needed < stated)
}

/// The lowest level whose limits a track keeps.
fn needed_level(set: &SequenceSet, demand: Demand) -> Option<u8> {
    let (width, height) = (u64::from(set.width_macroblocks), u64::from(set.height_macroblocks));
    let macroblocks = width.checked_mul(height)?;
    // Without a statement, the decoder's buffer must hold all references and all frames that wait to be
    // shown.
    let unstated = set.reference_frames.saturating_add(demand.reordered).min(MOST_BUFFERED);
    let buffered = set.buffered_frames.unwrap_or(unstated).max(set.reference_frames).max(1);
    let is_high = set.profile >= 100;
    LEVELS
        .iter()
        .find(|level| {
            // No side may be longer than that of a picture of eight times its width or height.
            let longest = width.max(height);
            macroblocks <= level.frame_macroblocks
                && longest.saturating_mul(longest) <= 8 * level.frame_macroblocks
                && macroblocks.saturating_mul(demand.frames_per_second) <= level.macroblocks_per_second
                && macroblocks.saturating_mul(u64::from(buffered)) <= level.buffered_macroblocks
                && demand.bitrate <= level.kbps * if is_high { 1250 } else { 1000 }
        })
        .map(|level| level.idc)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALM: Demand = Demand { frames_per_second: 30, bitrate: 500_000, reordered: 2 };
    const SMALL: SequenceSet = SequenceSet {
        profile: 100,
        level: 62,
        width_macroblocks: 40,
        height_macroblocks: 23,
        reference_frames: 3,
        buffered_frames: Some(4),
        only_frames: true,
    };

    #[test]
    fn the_level_follows_from_the_stream() {
        let level = |set: SequenceSet, demand: Demand| needed_level(&set, demand).unwrap();
        assert_eq!(level(SMALL, CALM), 30);
        assert_eq!(level(SMALL, Demand { frames_per_second: 60, ..CALM }), 31);
        assert_eq!(level(SMALL, Demand { bitrate: 20_000_000, ..CALM }), 32);
        assert_eq!(level(SMALL, Demand { bitrate: 60_000_000, ..CALM }), 41);
        // 16 frames need 14,720 macroblocks.
        assert_eq!(level(SequenceSet { reference_frames: 16, ..SMALL }, CALM), 31);
        assert_eq!(level(SequenceSet { buffered_frames: Some(16), ..SMALL }, CALM), 31);
        let unstated = SequenceSet { buffered_frames: None, ..SMALL };
        assert_eq!(level(unstated, Demand { reordered: 9, ..CALM }), 31);
        let full_hd = SequenceSet { width_macroblocks: 120, height_macroblocks: 68, ..SMALL };
        assert_eq!(level(full_hd, CALM), 40);
        assert_eq!(level(full_hd, Demand { frames_per_second: 60, ..CALM }), 42);
        assert_eq!(level(SequenceSet { reference_frames: 5, ..full_hd }, CALM), 50);
        let wide = SequenceSet { width_macroblocks: 256, height_macroblocks: 1, ..SMALL };
        assert_eq!(level(wide, CALM), 40, "the longest side");
        assert_eq!(needed_level(&SequenceSet { width_macroblocks: u32::MAX, ..SMALL }, CALM), None);
    }

    /// The `avcC` box of a clip that x264 encodes with these options.
    fn avcc(options: &str) -> Avcc {
        let arguments = format!(
            "-f lavfi -i testsrc2=size=640x360:rate=30:duration=0.5 -pix_fmt yuv420p -c:v libx264 -preset fast \
             {options} -f h264 -bsf:v filter_units=pass_types=7-8 pipe:1"
        );
        let stream = crate::fixtures::ffmpeg(&arguments);
        let starts: Vec<usize> = memchr::memmem::find_iter(&stream, &[0, 0, 1]).map(|at| at + 3).collect();
        let unit = |number: usize| {
            let end = starts.get(number + 1).map_or(stream.len(), |next| next - 3);
            let unit = &stream[starts[number]..end];
            &unit[..=unit.iter().rposition(|byte| *byte != 0).unwrap()]
        };
        Avcc::new(unit(0), unit(1)).unwrap()
    }

    #[test]
    fn parameter_sets_of_x264_are_parsed() {
        let absurd = avcc("-level 6.2");
        let set = SequenceSet::parse(&absurd.sequence_parameter_sets[0]).unwrap();
        assert_eq!(
            (set.profile, set.level, set.width_macroblocks, set.height_macroblocks),
            (100, 62, 40, 23)
        );
        assert!(set.buffered_frames.is_some() && set.reference_frames > 0);
        assert_eq!(lower_level(&absurd, CALM), Some(30));
        assert_eq!(lower_level(&avcc("-level 4.1"), CALM), None, "no device refuses it");
        let many =
            avcc("-level 6.2 -x264-params ref=16:bframes=8:nal-hrd=vbr:vbv-maxrate=4000:vbv-bufsize=4000");
        assert_eq!(lower_level(&many, CALM), Some(31));
        let old = avcc("-level 5.2 -profile:v baseline -x264-params cqm=flat");
        assert_eq!(lower_level(&old, CALM), Some(30));
        let matrices = avcc("-level 5.2 -x264-params cqm=jvt");
        assert_eq!(lower_level(&matrices, CALM), Some(30));
    }

    proptest! {
        #[test]
        fn a_higher_demand_never_needs_a_lower_level(
            (width, height, references) in (1_u32..300, 1_u32..300, 1_u32..17),
            (frames_per_second, bitrate) in (1_u64..120, 1_u64..100_000_000),
        ) {
            let set = SequenceSet {
                width_macroblocks: width, height_macroblocks: height, reference_frames: references, ..SMALL
            };
            let low = needed_level(&set, Demand { frames_per_second, bitrate, reordered: 0 });
            let high = needed_level(
                &set,
                Demand { frames_per_second: frames_per_second * 2, bitrate: bitrate * 2, reordered: 4 },
            );
            prop_assert!(high.is_none() || low <= high);
        }
    }
}

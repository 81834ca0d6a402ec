use proptest::prelude::*;

use super::{
    fargate::{FARGATE, GIB, MOST_MEMORY, STORAGE_GIB, VCPU, check},
    *,
};
use crate::inspect::media_facts::codecs;

/// The template's default size.
const BASE: Size = Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 };

fn size(vcpu: u32, memory_gib: u32) -> Size {
    Size { cpu: vcpu * VCPU, memory_mib: memory_gib * GIB, storage_gib: 21 }
}

fn video(codec: &'static str, width: u32, height: u32, minutes: f64) -> MediaFacts {
    MediaFacts {
        container: Some("MP4"),
        codec: Some(codec),
        width: Some(width),
        height: Some(height),
        frame_rate: Some(30_000.0 / 1001.0),
        duration_seconds: Some(minutes * 60.0),
        has_video: Some(true),
        has_audio: Some(true),
    }
}

fn chosen(facts: &MediaFacts) -> (Size, String) {
    Sizing::default().choose(Some(1_288_490_189), Some(facts), BASE)
}

#[test]
fn the_default_rules_choose_the_size_by_picture_codec_and_duration() {
    for (codec, width, height, minutes, expected, rule) in [
        ("h264", 1920, 1080, 0.1, size(2, 4), "short"),
        ("hevc", 1080, 1920, 2.0, size(2, 4), "short"),
        ("h264", 854, 480, 50.0, size(2, 4), "small picture"),
        ("h264", 854, 480, 90.0, BASE, "ordinary"),
        ("h264", 1920, 1080, 12.3, BASE, "ordinary"),
        ("h264", 2560, 1440, 12.3, BASE, "ordinary"),
        ("av1", 2560, 1440, 12.3, size(8, 16), "large picture, slow to decode"),
        ("prores", 3840, 2160, 0.1, size(8, 16), "large picture, slow to decode"),
        ("h264", 3840, 2160, 0.1, size(8, 16), "4K"),
        ("h264", 3840, 1600, 120.0, size(8, 16), "4K"),
        ("mpeg4", 7680, 4320, 1.0, size(8, 16), "4K"),
    ] {
        let (size, reason) = chosen(&video(codec, width, height, minutes));
        assert_eq!(size, expected, "{reason}");
        assert!(reason.ends_with(&format!(": rule \"{rule}\"")), "{reason}");
    }
}

#[test]
fn the_reason_names_the_known_properties_and_the_rule() {
    let of = |facts: Option<&MediaFacts>, bytes| Sizing::default().choose(bytes, facts, BASE).1;
    let bytes = Some(1_288_490_189);
    assert_eq!(
        of(Some(&video("h264", 1920, 1080, 12.3)), bytes),
        "h264 1920x1080 at 29.97/s, 12.3 min, 1.2 GiB: rule \"ordinary\""
    );
    let audio = MediaFacts {
        container: Some("MP4"),
        duration_seconds: Some(15.0),
        has_video: Some(false),
        ..MediaFacts::default()
    };
    assert_eq!(of(Some(&audio), Some(1 << 20)), "MP4 audio only, 15.0 s, 1.0 MiB: rule \"short\"");
    let matroska = MediaFacts { container: Some("Matroska"), ..MediaFacts::default() };
    assert_eq!(of(Some(&matroska), bytes), "Matroska, 1.2 GiB: rule \"ordinary\"");
    assert_eq!(of(None, None), "no properties known: rule \"ordinary\"");
}

#[test]
fn a_condition_on_an_unknown_property_does_not_hold() {
    for condition in [
        "max_gib = 1e9",
        "max_megapixels = 1e9",
        "min_megapixels = 1e-9",
        "max_minutes = 1e9",
        "codecs = [\"h264\"]",
    ] {
        let text = format!("[[rule]]\nname = \"a\"\n{condition}\nvcpu = 8\nmemory_gib = 16");
        let sizing = Sizing::parse(&text).unwrap();
        let (given, reason) = sizing.choose(None, Some(&MediaFacts::default()), BASE);
        assert_eq!((given, reason.as_str()), (BASE, "no properties known: no rule applies"));
        let (given, _) = sizing.choose(Some(1), Some(&video("h264", 64, 64, 1.0)), BASE);
        assert_eq!(given, size(8, 16), "{condition}");
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let sizing = Sizing::parse(
        "[[rule]]\nname = \"a\"\nmax_gib = 1\nmin_megapixels = 2\nmax_megapixels = 3\nmax_minutes = 5\n\
         codecs = [\"h264\", \"hevc\"]\nvcpu = 0.25\nmemory_gib = 0.5\nstorage_gib = 50",
    )
    .unwrap();
    let small = Size { cpu: 256, memory_mib: 512, storage_gib: 50 };
    for (bytes, facts, expected) in [
        (1 << 30, video("hevc", 1920, 1080, 5.0), small),
        ((1 << 30) + 1, video("hevc", 1920, 1080, 5.0), BASE),
        (1, video("vp9", 1920, 1080, 5.0), BASE),
        (1, video("hevc", 1280, 720, 5.0), BASE),
        (1, video("hevc", 3840, 2160, 5.0), BASE),
        (1, video("hevc", 1920, 1080, 5.1), BASE),
    ] {
        assert_eq!(sizing.choose(Some(bytes), Some(&facts), BASE).0, expected, "{facts:?}");
    }
}

#[test]
fn a_file_may_have_only_rules_or_only_prices() {
    let default = Sizing::default();
    let rules = Sizing::parse("rule = []").unwrap();
    assert_eq!((rules.rules.len(), rules.prices), (0, default.prices));
    let dearer = DEFAULT.split_once("[prices]").unwrap().1.replace("0.04048", "0.05056");
    let prices = Sizing::parse(&format!("[prices]{dearer}")).unwrap();
    assert_eq!((&prices.rules, prices.prices.x86_vcpu_hour), (&default.rules, 0.050_56));
}

#[test]
fn the_task_definition_gives_the_values_that_a_rule_does_not_set() {
    let base = Size { storage_gib: 50, ..BASE };
    for (rule, base, expected) in [
        ("storage_gib = 100", base, Size { storage_gib: 100, ..BASE }),
        ("", base, base),
        ("vcpu = 2\nmemory_gib = 4", base, Size { storage_gib: 50, ..size(2, 4) }),
        // Tasks have 20 GiB by default, but a request cannot name that value.
        ("", Size { storage_gib: 20, ..BASE }, BASE),
        ("max_gib = 1", Size { storage_gib: 20, ..BASE }, BASE),
    ] {
        let sizing = Sizing::parse(&format!("[[rule]]\nname = \"a\"\n{rule}")).unwrap();
        assert_eq!(sizing.choose(None, None, base).0, expected, "{rule}");
    }
}

#[test]
fn only_the_sizes_of_fargate_are_valid() {
    for size in [
        Size { memory_mib: u32::MAX, ..BASE },
        Size { memory_mib: 0, ..BASE },
        Size { memory_mib: 30 * GIB + 1, ..BASE },
        Size { cpu: u32::MAX, ..BASE },
        Size { cpu: 0, ..BASE },
        Size { storage_gib: 20, ..BASE },
    ] {
        assert!(check(size).is_err(), "{size:?}");
    }
    // From the smallest to the largest, counted by hand: 3 + 4 + 7 + 13 + 23 + 12 + 12.
    let cpus = [256, 512, 1024, 2048, 4096, 8192, 16_384];
    let all = cpus.iter().flat_map(|&cpu| (0..=MOST_MEMORY).map(move |memory_mib| (cpu, memory_mib)));
    let valid = all.filter(|&(cpu, memory_mib)| check(Size { cpu, memory_mib, storage_gib: 21 }).is_ok());
    assert_eq!(valid.count(), 74);
}

#[test]
fn an_error_names_the_rule_and_the_field() {
    let rule = |text: &str| format!("[[rule]]\nname = \"films\"\n{text}");
    let most = DEFAULT.split_once("[prices]").unwrap().1;
    let prices = |from: &str, to: &str| format!("[prices]{}", most.replace(from, to));
    for (text, expected) in [
        (rule("vcpus = 2"), "unknown field `vcpus`"),
        (rule("vcpu = \"2\""), "invalid type: string \"2\""),
        ("rules = []".into(), "unknown field `rules`"),
        ("[[rule]]\nvcpu = 2".into(), "missing field `name`"),
        ("[[rule]]\nname = \" \"".into(), "name is empty"),
        (rule("") + "max_gib = 1\n" + &rule(""), "rule \"films\": name is used twice"),
        (rule("max_gib = 0"), "rule \"films\": max_gib is 0, expected more than 0"),
        (rule("max_minutes = nan"), "rule \"films\": max_minutes is NaN"),
        (rule("max_megapixels = -1"), "rule \"films\": max_megapixels is -1"),
        (
            rule("min_megapixels = 2\nmax_megapixels = 1"),
            "rule \"films\": min_megapixels is 2, expected at most",
        ),
        (rule("codecs = [\"h265\"]"), "rule \"films\": codecs is \"h265\", expected any of av1, "),
        (rule("codecs = []"), "rule \"films\": codecs is empty"),
        (rule("vcpu = 2"), "rule \"films\": memory_gib is missing"),
        (rule("memory_gib = 2"), "rule \"films\": vcpu is missing"),
        (rule("vcpu = 0.3\nmemory_gib = 2"), "rule \"films\": vcpu is 0.3, expected 0.25, "),
        (
            rule("vcpu = 2\nmemory_gib = 4.3"),
            "rule \"films\": memory_gib is 4.3, expected an integer, or 0.5",
        ),
        (
            rule("vcpu = 3\nmemory_gib = 8"),
            "rule \"films\": Fargate does not offer 3072 CPU units; allowed: 256",
        ),
        (
            rule("vcpu = 8\nmemory_gib = 18"),
            "rule \"films\": Fargate does not offer 18432 MiB of memory with 8192 CPU units; allowed: 16384 to \
             61440 in steps of 4096",
        ),
        (
            rule("vcpu = 0.25\nmemory_gib = 1.5"),
            "not offer 1536 MiB of memory with 256 CPU units; allowed: 512, 1024 to 2048 in steps",
        ),
        (rule("storage_gib = 20"), "rule \"films\": Fargate does not offer 20 GiB of storage; allowed: 21"),
        (rule("storage_gib = 201"), "201 GiB of storage"),
        (rule("storage_gib = -1"), "invalid value: integer `-1`"),
        (
            rule("") + "[[rule]]\nname = \"others\"",
            "rule \"films\" has no condition, so the rules after it never apply",
        ),
        (prices("0.04048", "-1"), "prices: x86_vcpu_hour is -1, expected 0 or more"),
        (prices("0.3 ", "1.1 "), "prices: spot_share is 1.1, expected 0 to 1"),
        (prices("x86_gib_hour = 0.004445", ""), "missing field `x86_gib_hour`"),
    ] {
        let error = Sizing::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
    }
}

#[test]
fn a_larger_size_has_twice_the_memory_and_more_vcpus_if_needed() {
    for (from, to) in [
        (size(4, 8), Some(size(4, 16))),
        (size(4, 16), Some(size(8, 32))),
        (size(4, 30), Some(size(8, 60))),
        (size(2, 5), Some(size(2, 10))),
        (size(8, 20), Some(size(8, 40))),
        (size(8, 60), Some(size(16, 120))),
        (size(16, 40), Some(size(16, 80))),
        (size(16, 64), Some(size(16, 120))),
        (size(16, 112), Some(size(16, 120))),
        (size(16, 120), None),
    ] {
        assert_eq!(larger(from), to, "{from:?}");
    }
    let smallest = Size { cpu: 256, memory_mib: 512, storage_gib: 200 };
    assert_eq!(larger(smallest), Some(Size { memory_mib: 1024, ..smallest }));
}

#[test]
fn the_cost_follows_the_price_list() {
    let sizing = Sizing::default();
    let cost = |size, capacity, arm, seconds| (sizing.cost(size, capacity, arm, seconds) * 1e6).round() / 1e6;
    let free = Size { storage_gib: 20, ..BASE };
    // 4 x 0.04048 + 8 x 0.004445; 4 x 0.03238 + 8 x 0.00356.
    assert_eq!(cost(free, Capacity::OnDemand, false, 3600.0), 0.197_48);
    assert_eq!(cost(free, Capacity::OnDemand, true, 3600.0), 0.158);
    assert_eq!(cost(free, Capacity::Spot, false, 3600.0), 0.059_244);
    assert_eq!(cost(Size { storage_gib: 120, ..BASE }, Capacity::OnDemand, false, 3600.0), 0.208_58);
    // Fargate bills at least a minute.
    let minute = cost(free, Capacity::OnDemand, false, 60.0);
    assert_eq!(
        [0.0, 59.0, f64::NAN].map(|seconds| cost(free, Capacity::OnDemand, false, seconds)),
        [minute; 3]
    );
    assert_eq!(minute, 0.003_291);
}

fn any_size() -> impl Strategy<Value = Size> {
    let cpu = prop_oneof![
        prop::sample::select(FARGATE.iter().map(|row| row.cpu).collect::<Vec<_>>()),
        any::<u32>()
    ];
    (cpu, prop_oneof![0_u32..130_000, any::<u32>()], 0_u32..300)
        .prop_map(|(cpu, memory_mib, storage_gib)| Size { cpu, memory_mib, storage_gib })
}

fn valid_size() -> impl Strategy<Value = Size> {
    (prop::sample::select((0..FARGATE.len()).collect::<Vec<_>>()), any::<prop::sample::Index>(), STORAGE_GIB)
        .prop_map(|(row, step, storage_gib)| {
            let row = &FARGATE[row];
            let steps = (row.most - row.least) / row.step + 1;
            let memory_mib = row.least + step.index(steps as usize) as u32 * row.step;
            Size { cpu: row.cpu, memory_mib, storage_gib }
        })
}

fn any_facts() -> impl Strategy<Value = MediaFacts> {
    (
        prop::option::of(prop::sample::select(codecs().collect::<Vec<_>>())),
        prop::option::of((1_u32..70_000, 1_u32..70_000)),
        prop::option::of(0.001_f64..1e6),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(codec, size, duration_seconds, has_video)| MediaFacts {
            codec,
            width: size.map(|(width, _)| width),
            height: size.map(|(_, height)| height),
            duration_seconds,
            has_video,
            ..MediaFacts::default()
        })
}

proptest! {
    #[test]
    fn every_chosen_size_is_valid(
        bytes in prop::option::of(any::<u64>()),
        facts in prop::option::of(any_facts()),
        base in valid_size(),
    ) {
        let (size, reason) = Sizing::default().choose(bytes, facts.as_ref(), base);
        prop_assert_eq!(check(size), Ok(()));
        prop_assert!(reason.contains(": rule \""));
    }

    #[test]
    fn a_larger_size_is_valid_and_larger(size in prop_oneof![any_size(), valid_size()]) {
        match larger(size) {
            Some(next) => {
                prop_assert_eq!(check(next), Ok(()));
                prop_assert!(next.memory_mib > size.memory_mib && next.cpu >= size.cpu);
                let after_next = larger(next);
                prop_assert!(after_next.is_none_or(|size| size.memory_mib > next.memory_mib));
            }
            None => prop_assert!(size.memory_mib >= 120 * GIB || size.cpu > 16 * VCPU),
        }
    }

    #[test]
    fn accepted_rules_give_valid_sizes(
        vcpu in prop_oneof![
            prop::sample::select(vec![0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
            any::<f64>(),
        ],
        memory in prop_oneof![(1_u32..130).prop_map(f64::from), any::<f64>()],
        storage in 0_u32..300,
        base in valid_size(),
    ) {
        let text = format!("[[rule]]\nname = \"a\"\nvcpu = {vcpu:?}\nmemory_gib = {memory:?}\nstorage_gib = {storage}");
        if let Ok(sizing) = Sizing::parse(&text) {
            prop_assert_eq!(check(sizing.choose(None, None, base).0), Ok(()));
        }
    }
}

//! Tests of the decisions of `prune`.

use proptest::prelude::*;

use super::*;
use crate::fixtures;

const NOW: i64 = 100 * 86_400;

fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_second(NOW - days * 86_400).unwrap()
}

fn id(digit: u32) -> JobId {
    format!("{digit:032x}").parse().unwrap()
}

fn ended(state: State, days: i64) -> Job {
    Job::Ended { state, at: days_ago(days) }
}

/// The actions for jobs with the ids 0, 1, 2, …
fn decided(jobs: &[Job], shown: &[u32], returning: &[u32], superseded_days: Option<i64>) -> Vec<Action> {
    let ids = |digits: &[u32]| digits.iter().copied().map(id).collect();
    let jobs = (0..).map(id).zip(jobs.iter().cloned()).collect();
    let superseded = superseded_days.map(|days| SignedDuration::from_hours(24 * days));
    actions(&jobs, &ids(shown), &ids(returning), superseded, days_ago(0)).into_values().collect()
}

#[test]
fn leftovers_go_unless_the_stable_address_names_them() {
    let jobs = [ended(State::Failed, 2), ended(State::Obsolete, 2), ended(State::Cancelled, 2), Job::Orphan];
    let (leftovers, folder) = (Action::Leftovers, Action::Folder);
    assert_eq!(decided(&jobs, &[], &[], None), [leftovers, leftovers, leftovers, folder]);
    assert_eq!(decided(&jobs, &[0], &[3], None), [Action::Remains, leftovers, leftovers, Action::Nothing]);
}

#[test]
fn nothing_of_a_video_with_a_running_job_goes() {
    let jobs = [ended(State::Failed, 50), Job::Orphan, Job::InUse];
    assert_eq!(decided(&jobs, &[], &[], Some(1)), [Action::Nothing; 3]);
}

#[test]
fn a_job_that_ended_within_a_day_stays() {
    let now = [Job::Ended { state: State::Failed, at: days_ago(0) - SignedDuration::from_hours(23) }];
    assert_eq!(decided(&now, &[], &[], None), [Action::Nothing]);
}

#[test]
fn a_replaced_stream_goes_only_after_the_time_that_the_operator_gives() {
    let jobs = [ended(State::Done, 40), ended(State::Done, 10)];
    assert_eq!(decided(&jobs, &[1], &[], None), [Action::Remains; 2]);
    assert_eq!(decided(&jobs, &[1], &[], Some(10)), [Action::Remains; 2]);
    assert_eq!(decided(&jobs, &[1], &[], Some(9)), [Action::All, Action::Remains]);
    // The stable address names both, another one, or the older one.
    assert_eq!(decided(&jobs, &[0, 1], &[], Some(1)), [Action::Remains; 2]);
    assert_eq!(decided(&jobs, &[7], &[], Some(1)), [Action::Remains; 2]);
    assert_eq!(decided(&jobs, &[0], &[], Some(1)), [Action::Remains; 2]);
    // A stream that is not done has replaced both.
    let failed = [jobs[0].clone(), jobs[1].clone(), ended(State::Failed, 5)];
    assert_eq!(decided(&failed, &[2], &[1], Some(1)), [Action::Remains; 3]);
}

#[test]
fn a_folder_is_a_jobs_only_if_a_record_or_its_name_says_so() {
    let uploads: BucketName = "uploads".parse().unwrap();
    let mut record = fixtures::record();
    let own = record.job_id.clone();
    assert_eq!(job("a.mp4", &own, Some(&record), &uploads, &[]), Job::InUse);
    record.state = State::Done;
    assert_eq!(
        job("a.mp4", &own, Some(&record), &uploads, &[]),
        Job::Ended { state: State::Done, at: Timestamp::UNIX_EPOCH }
    );
    assert_eq!(job("b.mp4", &own, Some(&record), &uploads, &[]), Job::Unknown);
    assert_eq!(job("a.mp4", &own, None, &uploads, &[]), Job::Orphan);
    assert_eq!(job("assets", &own, None, &uploads, &[]), Job::Unknown);
    // The key of a stem with a hash is known from another job.
    let odd = fixtures::job("a.mp4/");
    let stem = Layout::stem_of(&odd.source.key);
    assert_eq!(job(&stem, &odd.id, None, &uploads, &[]), Job::Unknown);
    let sibling = Record::new(&odd, Timestamp::UNIX_EPOCH);
    assert_eq!(job(&stem, &odd.id, None, &uploads, &[sibling]), Job::Orphan);
}

fn any_job() -> impl Strategy<Value = Job> {
    let state = prop_oneof![
        Just(State::Done),
        Just(State::Rejected),
        Just(State::Obsolete),
        Just(State::Failed),
        Just(State::Cancelled),
    ];
    prop_oneof![
        1 => Just(Job::InUse),
        2 => Just(Job::Orphan),
        1 => Just(Job::Unknown),
        8 => (state, 0i64..30).prop_map(|(state, days)| ended(state, days)),
    ]
}

proptest! {
    #[test]
    fn no_segments_go_that_something_may_use(
        jobs in prop::collection::vec(any_job(), 1..6),
        shown in prop::collection::vec(0u32..6, 0..3),
        returning in prop::collection::vec(0u32..6, 0..3),
        superseded in prop::option::of(1i64..20),
    ) {
        let actions = decided(&jobs, &shown, &returning, superseded);
        let is_named = |index: usize| shown.iter().chain(&returning).any(|named| *named as usize == index);
        for (index, (job, action)) in jobs.iter().zip(&actions).enumerate() {
            if jobs.contains(&Job::InUse) || *job == Job::Unknown {
                prop_assert_eq!(*action, Action::Nothing);
            }
            if action.removes_segments() {
                prop_assert!(!is_named(index));
            }
            let Job::Ended { state, at } = job else { continue };
            if *at >= days_ago(1) {
                prop_assert_eq!(*action, Action::Nothing);
            }
            if *state == State::Done && action.removes_segments() {
                let newer = jobs.iter().enumerate().any(|(other, newer)| {
                    other != index
                        && shown.contains(&u32::try_from(other).unwrap())
                        && matches!(newer, Job::Ended { state: State::Done, at: end } if end >= at)
                });
                prop_assert!(newer && superseded.is_some());
            }
        }
    }
}

//! Hundreds of videos, a cloud in which every call can fail, consumers that die and are replaced: once for
//! every seed, under paused time. What must hold afterwards, whatever happened, is in [`invariants`].
//!
//! `VIDSTREAMX_SEEDS=1234 cargo test -p vidstreamx-consumer --test random_simulation` repeats one seed exactly;
//! `VIDSTREAMX_SEEDS=0..100` runs others than the first thousand; `make soak` goes on with new ones.

// Clippy's allowance for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../cloud/mod.rs"]
mod cloud;
mod invariants;
mod scenario;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant as WallClock, SystemTime, UNIX_EPOCH},
};

use cloud::{Cloud, FaultyClient};
use scenario::{Event, Kind, Plan, VIDEOS};
use tokio::{
    select,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::intake;

/// Every death or replacement spends a receive of all that was held; the template allows ten.
const MOST_DEATHS: usize = 6;
/// More than any run may take, outages and thirty-hour videos included.
const LONGEST_RUN: Duration = Duration::from_hours(24 * 7);

/// All that is there to look at when everything has come to its end.
struct Outcome {
    plan: Arc<Plan>,
    cloud: Arc<Cloud>,
    seats: Vec<Arc<FaultyClient>>,
    /// Whether the dead letters have been moved back.
    repaired: bool,
}

/// Keeps a consumer running: one that dies is followed by another after a while, until it is told to end.
fn keep_running(
    cloud: &Arc<Cloud>,
    plan: &Arc<Plan>,
    seats: &Arc<Mutex<Vec<Arc<FaultyClient>>>>,
    shutdown: CancellationToken,
    seed: u64,
) -> JoinHandle<()> {
    let (cloud, plan, seats) = (cloud.clone(), plan.clone(), seats.clone());
    tokio::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(seed);
        while !shutdown.is_cancelled() {
            let mut faults = plan.faults(rng.u64(..));
            let seat = {
                let mut seats = seats.lock().unwrap();
                let deaths = seats.iter().filter(|seat| seat.crashed.is_cancelled()).count();
                if deaths + plan.seats + plan.replacements.len() >= MOST_DEATHS {
                    faults.crashes = 0.0;
                }
                seats.push(Arc::new(FaultyClient::new(cloud.clone(), faults)));
                seats[seats.len() - 1].clone()
            };
            let run = intake::run(cloud.services_through(&seat), plan.options(), shutdown.clone());
            let mut consumer = tokio::spawn(run);
            select! {
                biased;
                ended = &mut consumer => return ended.unwrap(),
                () = seat.crashed.cancelled() => {
                    consumer.abort();
                    assert!(consumer.await.is_err());
                }
            }
            select! {
                biased;
                () = shutdown.cancelled() => {}
                () = sleep(Duration::from_secs(rng.u64(0..200))) => {}
            }
        }
    })
}

async fn play(seed: u64) -> Outcome {
    fastrand::seed(seed);
    let plan = Arc::new(Plan::new(seed));
    let repaired = Arc::new(AtomicBool::new(false));
    let cloud = Cloud::that_looks_at_launches({
        let (plan, repaired) = (plan.clone(), repaired.clone());
        move |key, nth, launch| {
            let video: usize = key.strip_suffix(".mp4").unwrap().parse().unwrap();
            let kind = plan.kinds[video];
            kind.play(nth, launch, repaired.load(Ordering::Relaxed), plan.seconds(video, nth))
        }
    });
    for (video, kind) in plan.kinds.iter().enumerate() {
        match kind {
            Kind::Deleted => cloud.delete_object(&Plan::key(video)),
            Kind::NoVideo => cloud.is_no_video(&Plan::key(video)),
            _ => {}
        }
    }
    plan.strangers().into_iter().for_each(|body| cloud.send(body));

    let start = Instant::now();
    let arriving = tokio::spawn({
        let (cloud, plan) = (cloud.clone(), plan.clone());
        async move {
            for (at, event) in plan.events() {
                sleep_until(start + at).await;
                match event {
                    Event::Upload(body) => cloud.send(body),
                    Event::Drought(lasts) => cloud.refuse_for(lasts),
                    Event::Outage(lasts) => cloud.fail_all_for(lasts),
                }
            }
        }
    });

    let seats = Arc::new(Mutex::new(Vec::new()));
    let mut running = Vec::new();
    for seat in 0..plan.seats {
        let shutdown = CancellationToken::new();
        let seed = seed.wrapping_mul(31).wrapping_add(seat as u64);
        running.push((keep_running(&cloud, &plan, &seats, shutdown.clone(), seed), shutdown));
    }
    // A rolling replacement: the next one starts before the one before it ends.
    let mut replacements = plan.replacements.clone();
    replacements.sort();
    for (nth, at) in replacements.into_iter().enumerate() {
        sleep_until(start + at).await;
        let shutdown = CancellationToken::new();
        let seed = seed.wrapping_mul(37).wrapping_add(nth as u64);
        running.push((keep_running(&cloud, &plan, &seats, shutdown.clone(), seed), shutdown));
        let (old, shutdown) = running.remove(0);
        shutdown.cancel();
        old.await.unwrap();
    }
    arriving.await.unwrap();
    until_settled(&cloud, &plan).await;
    if plan.redrive {
        repaired.store(true, Ordering::Relaxed);
        cloud.redrive();
        until_settled(&cloud, &plan).await;
    }
    for (consumer, shutdown) in running {
        shutdown.cancel();
        consumer.await.unwrap();
    }
    let seats = seats.lock().unwrap().clone();
    Outcome { repaired: plan.redrive, plan, cloud, seats }
}

async fn until_settled(cloud: &Cloud, plan: &Plan) {
    let settled = async {
        while cloud.queued() > 0 {
            sleep(Duration::from_secs(10)).await;
        }
    };
    let late = timeout(LONGEST_RUN, settled).await.is_err();
    assert!(!late, "after a week {} messages are left of seed {}", cloud.queued(), plan.seed);
}

/// Plays a seed and says what does not hold.
fn violations(seed: u64) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(play(seed))));
    match played {
        Ok(outcome) => invariants::violations(&outcome),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            vec![text.unwrap_or_else(|| "it panicked".to_owned())]
        }
    }
}

/// Plays seeds on all cores for as long as `goes_on` wants another; at most ten bad ones are told.
fn play_all(first: u64, goes_on: impl Fn(u64) -> bool + Sync) -> (u64, Vec<String>) {
    let (next, bad) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let played = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !goes_on(seed) || bad.lock().unwrap().len() >= 10 {
                        return;
                    }
                    let violations = violations(seed);
                    played.fetch_add(1, Ordering::Relaxed);
                    if !violations.is_empty() {
                        bad.lock().unwrap().push(format!("seed {seed}: {}", violations.join("; ")));
                    }
                }
            });
        }
    });
    (played.into_inner(), bad.into_inner().unwrap())
}

fn seeds() -> Range<u64> {
    match std::env::var("VIDSTREAMX_SEEDS") {
        Err(_) => 0..1000,
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
            None => text.parse().map(|seed| seed..seed + 1).unwrap(),
        },
    }
}

#[test]
fn every_seed_ends_well() {
    let seeds = seeds();
    let (played, bad) = play_all(seeds.start, |seed| seed < seeds.end);
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert_eq!(played, seeds.end - seeds.start);
}

/// The same seed is the same run to the last call, or a failing one would be of no use.
#[test]
fn a_seed_repeats_itself() {
    let trace = |seed| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let start = runtime.block_on(async { Instant::now() });
        let outcome = runtime.block_on(play(seed));
        let tasks = outcome.cloud.tasks().into_iter();
        let tasks: Vec<_> = tasks.map(|task| (task.job.source.key, task.started_at - start)).collect();
        let calls: Vec<_> = outcome.seats.iter().map(|seat| seat.describe_calls().len()).collect();
        (tasks, calls)
    };
    for seed in [3, 4, 5] {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
}

/// `make soak`: new seeds for `VIDSTREAMX_SOAK_SECONDS`.
#[test]
#[allow(clippy::print_stdout)]
#[ignore = "runs for as long as one likes"]
fn soak() {
    let seconds =
        std::env::var("VIDSTREAMX_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1000;
    let begun = WallClock::now();
    let told = Mutex::new(begun);
    let (played, bad) = play_all(first, |seed| {
        let mut told = told.lock().unwrap();
        if told.elapsed() > Duration::from_secs(10) {
            *told = WallClock::now();
            let minutes = begun.elapsed().as_secs_f64() / 60.0;
            let per_minute = (seed - first) as f64 / minutes;
            println!("{} seeds of {VIDEOS} videos, {per_minute:.0} a minute", seed - first);
        }
        begun.elapsed() < Duration::from_secs(seconds)
    });
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    println!("{played} seeds from {first} on, none of them bad");
}

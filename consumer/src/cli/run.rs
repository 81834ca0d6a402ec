//! The command `run`: the consumer with its services, from its start to its end.

use std::{io, sync::Arc};

use jiff::Timestamp;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};
use vidstreamx_job::Size;

use super::{exit::Failure, signals::watch_signals};
use crate::{
    aws::client,
    aws::ecs::Ecs,
    aws::record_store::S3RecordStore,
    aws::sqs::Sqs,
    aws::task_definition::TaskDefaults,
    commands::check::{self, FindingState},
    config::Settings,
    http,
    inspect::S3Uploads,
    intake::{self, DecisionSettings, Options},
    metrics::Metrics,
    reconcile::{JobOptions, Policy},
    services::Services,
};

/// The template's default task size.
const TEMPLATE_SIZE: Size = Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 };

pub(super) async fn run(settings: Settings, drain: bool) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    watch_signals(shutdown.clone())?;
    let metrics = Arc::new(Metrics::new(&settings.cluster));
    // Dropping it at the end of this function closes the status endpoint with its connections.
    let _status = match settings.status_addr {
        Some(address) => {
            let listener = http::listen(address).await?;
            Some(AbortOnDropHandle::new(tokio::spawn(http::serve(listener, metrics.clone()))))
        }
        None => None,
    };
    let config = client::configuration().await?;
    let (findings, definition) = check::essentials(&config, &settings).await;
    for finding in findings {
        match finding.state {
            FindingState::Ok(_) | FindingState::NotChecked { .. } => {}
            FindingState::Unknown(why) => warn!(subject = finding.subject, why, "not checked"),
            FindingState::Wrong { fault, remedy } => {
                return Err(Failure::Wrong { subject: finding.subject, fault, remedy });
            }
        }
    }
    let definition = definition.unwrap_or_else(|| {
        let Size { cpu, memory_mib, .. } = TEMPLATE_SIZE;
        warn!(cpu, memory_mib, "the size in the task definition is unknown, so the template's size is used");
        TaskDefaults { size: TEMPLATE_SIZE, arm: false }
    });
    let sqs = aws_sdk_sqs::Client::new(&config);
    let queue = |url| Arc::new(Sqs::new(sqs.clone(), url, &settings.dead_letter_queue_url));
    let services = Services {
        upload_queue: queue(&settings.queue_url),
        back_fill_queue: queue(&settings.back_fill_queue_url),
        tasks: Arc::new(Ecs::new(
            &aws_sdk_ecs::Client::new(&config),
            aws_sdk_ecs::Client::new(&vidstreamx_aws::with_own_connections(&config)),
            settings.placement(),
        )),
        uploads: Arc::new(S3Uploads(vidstreamx_aws::s3(&config))),
        records: Arc::new(S3RecordStore::new(vidstreamx_aws::s3(&config), settings.output_bucket.clone())),
        clock: Arc::new(Timestamp::now),
        metrics: metrics.clone(),
    };
    info!(
        queue = settings.queue_url.as_str(),
        cluster = settings.cluster,
        max_tasks = settings.max_tasks,
        "consumer started"
    );
    let ended = CancellationToken::new();
    let lines = settings.emf.then(|| tokio::spawn(write_lines(metrics, ended.clone())));
    intake::run(services, options(&settings, definition, drain), shutdown).await;
    ended.cancel();
    if let Some(lines) = lines {
        // `write_lines` logs its errors itself.
        let _ = lines.await;
    }
    info!("consumer ended");
    Ok(())
}

/// The receive loop's part of the settings.
fn options(settings: &Settings, defaults: TaskDefaults, drain: bool) -> Options {
    Options {
        decisions: DecisionSettings {
            upload: settings.upload_bucket.clone(),
            output: settings.output_bucket.clone(),
            profile: settings.profile.clone(),
        },
        jobs: JobOptions {
            policy: Policy { max_attempts: settings.max_attempts.get(), capacity: settings.capacity },
            container: settings.container.clone(),
            max_tasks: usize::try_from(settings.max_tasks.get()).unwrap_or(usize::MAX),
            launches_per_second: settings.launches_per_second.get(),
            sizing: settings.sizing.clone().unwrap_or_default(),
            defaults,
        },
        drain,
    }
}

/// Writes metrics until `ended`. If writing fails, only the metrics end, and the consumer continues.
async fn write_lines(metrics: Arc<Metrics>, ended: CancellationToken) {
    if let Err(error) = metrics.write_lines(io::stdout(), Timestamp::now, ended).await {
        warn!(%error, "metrics cannot be written to standard output, so no more are written");
    }
}

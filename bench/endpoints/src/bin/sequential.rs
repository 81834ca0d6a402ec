//! A sequential consumer, to compare with: it receives a message, starts its task, deletes the message, and
//! receives the next one. It keeps no records, watches no tasks and retries no calls, so a failed task loses
//! its video.

use std::{env, error::Error};

use aws_sdk_ecs::types::{
    AwsVpcConfiguration, ContainerOverride, KeyValuePair, LaunchType, NetworkConfiguration, TaskOverride,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use percent_encoding::percent_decode_str;
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let https = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::from_env().http_client(https).load().await;
    let (sqs, ecs) = (aws_sdk_sqs::Client::new(&config), aws_sdk_ecs::Client::new(&config));
    let queue = env::var("VIDSTREAMX_QUEUE_URL")?;
    loop {
        let received = sqs.receive_message().queue_url(&queue).wait_time_seconds(20).send().await?;
        for message in received.messages() {
            for (bucket, key) in uploads(message.body().unwrap_or_default())? {
                start(&ecs, &bucket, &key).await?;
            }
            let receipt = message.receipt_handle().unwrap_or_default();
            sqs.delete_message().queue_url(&queue).receipt_handle(receipt).send().await?;
        }
    }
}

fn uploads(body: &str) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let event: Value = serde_json::from_str(body)?;
    let records = event["Records"].as_array().ok_or("no Records")?;
    records
        .iter()
        .map(|record| {
            let text = |at| record.pointer(at).and_then(Value::as_str).ok_or("a field is missing");
            let key = text("/s3/object/key")?.replace('+', " ");
            let key = percent_decode_str(&key).decode_utf8()?.into_owned();
            Ok((text("/s3/bucket/name")?.to_owned(), key))
        })
        .collect()
}

async fn start(ecs: &aws_sdk_ecs::Client, bucket: &str, key: &str) -> Result<(), Box<dyn Error>> {
    let pair = |name, value| KeyValuePair::builder().name(name).value(value).build();
    let container = ContainerOverride::builder()
        .name("transcoder")
        .environment(pair("BUCKET_NAME", bucket))
        .environment(pair("KEY", key))
        .build();
    let network = AwsVpcConfiguration::builder()
        .set_subnets(Some(vec![env::var("VIDSTREAMX_SUBNETS")?]))
        .security_groups(env::var("VIDSTREAMX_SECURITY_GROUPS")?)
        .build()?;
    ecs.run_task()
        .cluster(env::var("VIDSTREAMX_CLUSTER")?)
        .task_definition(env::var("VIDSTREAMX_TASK_DEFINITION")?)
        .launch_type(LaunchType::Fargate)
        .count(1)
        .overrides(TaskOverride::builder().container_overrides(container).build())
        .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build())
        .send()
        .await?;
    Ok(())
}

//! SQS, ECS and S3 in memory, for `make bench-consumer`: the calls that the consumer uses, with their
//! semantics. The latency of all calls is fixed, so the benchmark measures the consumer and not the services.
//!
//! The benchmark controls the services with requests below `/-/`: `GET counts`, `GET done`,
//! `POST fill?count=N`, `POST end-tasks`.

mod cluster;
mod library;
mod listing;
mod queue;
mod store;

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use vidstreamx_job::unquote_etag;

use crate::{
    cluster::Cluster,
    queue::Queue,
    store::{Conditions, OUTPUT_BUCKET, Store, UPLOAD_BUCKET, Upload},
};

/// SQS, ECS and S3 in memory, for `make bench-consumer`.
#[derive(Debug, Parser)]
struct Flags {
    /// Latency of every call
    #[arg(long, default_value = "50")]
    latency_ms: u64,
    /// Duration of every task
    #[arg(long, default_value = "60")]
    task_seconds: f64,
    /// Number of upload events in the queue at the start
    #[arg(long, default_value = "0")]
    uploads: u64,
    /// Number of videos that were made before the start, of which one per cent in the last 24 hours
    #[arg(long, default_value = "0")]
    library: usize,
    /// Video file that is the content of every upload
    #[arg(long)]
    video: PathBuf,
}

/// The services. All of their state is behind one lock, because one thread serves all requests.
struct Endpoints {
    state: Mutex<State>,
    /// Wakes the long polls that wait for a message.
    filled: Notify,
    latency: Duration,
    upload: Upload,
}

struct State {
    queue: Queue,
    dead_letters: u64,
    cluster: Cluster,
    store: Store,
    calls: BTreeMap<String, u64>,
}

const QUEUE: &str = "uploads";
const DEAD_LETTER_QUEUE: &str = "uploads-failed";
/// This queue is always empty.
const BACK_FILL_QUEUE: &str = "uploads-back-fill";

struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let video = std::fs::read(&flags.video)?;
    let mut queue = Queue::default();
    queue.fill(flags.uploads);
    let upload = Upload { bytes: video.into(), etag: "b21b84d653bb07b05b1e6b33684dc11b".to_owned() };
    let mut store = Store::default();
    library::fill(&mut store, flags.library, &upload, Timestamp::now())?;
    let endpoints = Arc::new(Endpoints {
        state: Mutex::new(State {
            queue,
            dead_letters: 0,
            cluster: Cluster::new(Duration::from_secs_f64(flags.task_seconds)),
            store,
            calls: BTreeMap::new(),
        }),
        filled: Notify::new(),
        latency: Duration::from_millis(flags.latency_ms),
        upload,
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(endpoints))
}

async fn serve(endpoints: Arc<Endpoints>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(endpoints.clone(), stream));
    }
}

async fn connection(endpoints: Arc<Endpoints>, stream: TcpStream) {
    let service = service_fn(|request| {
        let endpoints = endpoints.clone();
        async move { endpoints.reply(request).await }
    });
    // Fails if the client closes the connection, which is normal.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Endpoints {
    async fn reply(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = head.uri.path();
        let reply = if let Some(command) = path.strip_prefix("/-/") {
            self.control(command, head.uri.query().unwrap_or_default())
        } else {
            let reply = match head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
                Some(target) => self.json_call(target, &body).await,
                None => self.s3_call(
                    &head.method,
                    path,
                    head.uri.query().unwrap_or_default(),
                    &head.headers,
                    body,
                ),
            };
            sleep(self.latency).await;
            reply
        };
        let mut response = Response::new(Full::new(reply.body));
        *response.status_mut() = reply.status;
        for (name, value) in reply.headers {
            response.headers_mut().extend(HeaderValue::try_from(value).map(|value| (name, value)));
        }
        Ok(response)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, call: &str) {
        let mut state = self.state();
        match state.calls.get_mut(call) {
            Some(count) => *count += 1,
            None => drop(state.calls.insert(call.to_owned(), 1)),
        }
    }

    fn control(&self, command: &str, query: &str) -> Reply {
        let now = Instant::now();
        match command {
            "fill" => {
                let count = query.strip_prefix("count=").and_then(|count| count.parse().ok());
                self.state().queue.fill(count.unwrap_or(0));
                self.filled.notify_waiters();
            }
            "end-tasks" => self.state().cluster.end_all(now, Timestamp::now()),
            _ => {}
        }
        let mut state = self.state();
        let (visible, hidden) = state.queue.counts(now);
        let (started, running) = state.cluster.counts(now);
        let launching = state.cluster.started.map(|(first, last)| (last - first).as_secs_f64());
        let done = if command == "done" { state.store.count_containing(r#""state":"done""#) } else { 0 };
        json(&json!({
            "visible": visible, "hidden": hidden, "received": state.queue.received, "deleted": state.queue.deleted,
            "dead_letters": state.dead_letters, "started": started, "running": running, "done": done,
            "launching_seconds": launching, "calls": state.calls,
        }))
    }

    /// A call of SQS or ECS: both use the AWS JSON protocol.
    async fn json_call(&self, target: &str, body: &[u8]) -> Reply {
        let call = target.rsplit('.').next().unwrap_or_default();
        self.count(call);
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let now = Instant::now();
        match call {
            "ReceiveMessage" => self.receive(&request).await,
            "DeleteMessage" => {
                let known = self.state().queue.delete(text(&request, "ReceiptHandle"));
                if known { json(&json!({})) } else { error("ReceiptHandleIsInvalid") }
            }
            "DeleteMessageBatch" => {
                let mut state = self.state();
                for_each_entry(&request, |entry| state.queue.delete(text(entry, "ReceiptHandle")))
            }
            "ChangeMessageVisibility" => {
                let known = self.set_visibility(&request, now);
                if known { json(&json!({})) } else { error("MessageNotInflight") }
            }
            "ChangeMessageVisibilityBatch" => {
                for_each_entry(&request, |entry| self.set_visibility(entry, now))
            }
            "SendMessage" => {
                let id = self.send(text(&request, "QueueUrl"), &request);
                json(&json!({"MessageId": id, "MD5OfMessageBody": ""}))
            }
            "SendMessageBatch" => for_each_entry(&request, |entry| {
                self.send(text(&request, "QueueUrl"), entry);
                true
            }),
            "GetQueueAttributes" => self.attributes(text(&request, "QueueUrl"), now),
            "RunTask" => raw(self.state().cluster.run(&request, now, Timestamp::now())),
            "DescribeTasks" => raw(self.state().cluster.describe(&request, now)),
            "ListTasks" => raw(self.state().cluster.list(&request, now)),
            "DescribeClusters" => json(&cluster::clusters()),
            "DescribeTaskDefinition" => json(&cluster::task_definition()),
            _ => error("UnknownOperationException"),
        }
    }

    async fn receive(&self, request: &Value) -> Reply {
        let number = |field: &str, default| request[field].as_u64().unwrap_or(default);
        let most = usize::try_from(number("MaxNumberOfMessages", 1)).unwrap_or(1).min(10);
        let visibility = Duration::from_secs(number("VisibilityTimeout", 30));
        let until = Instant::now() + Duration::from_secs(number("WaitTimeSeconds", 0));
        let url = text(request, "QueueUrl");
        if is_dead_letters(url) {
            return json(&json!({}));
        }
        if is_back_fill(url) {
            sleep(until.saturating_duration_since(Instant::now())).await;
            return json(&json!({}));
        }
        loop {
            let filled = self.filled.notified();
            let now = Instant::now();
            let (messages, next) = {
                let queue = &mut self.state().queue;
                (queue.receive(most, visibility, &self.upload, now), queue.next_end())
            };
            if !messages.is_empty() {
                return json(&json!({"Messages": messages}));
            }
            if now >= until {
                return json(&json!({}));
            }
            let wait = next.unwrap_or(until).min(until).saturating_duration_since(now);
            let _ = timeout(wait, filled).await;
        }
    }

    fn set_visibility(&self, request: &Value, now: Instant) -> bool {
        let seconds = request["VisibilityTimeout"].as_u64().unwrap_or(0);
        let known = self.state().queue.set_visibility(
            text(request, "ReceiptHandle"),
            Duration::from_secs(seconds),
            now,
        );
        if seconds == 0 {
            self.filled.notify_waiters();
        }
        known
    }

    fn send(&self, queue: &str, message: &Value) -> String {
        let mut state = self.state();
        if is_dead_letters(queue) {
            state.dead_letters += 1;
            return format!("dead-{}", state.dead_letters);
        }
        let body = text(message, "MessageBody").to_owned();
        let number = state.queue.send(body, message["MessageAttributes"].clone());
        self.filled.notify_waiters();
        number.to_string()
    }

    fn attributes(&self, url: &str, now: Instant) -> Reply {
        let is_empty = is_dead_letters(url) || is_back_fill(url);
        let (visible, hidden) = if is_empty { (0, 0) } else { self.state().queue.counts(now) };
        let arn = |name: &str| format!("arn:aws:sqs:us-east-1:123456789012:{name}");
        let redrive = json!({"deadLetterTargetArn": arn(DEAD_LETTER_QUEUE), "maxReceiveCount": 10});
        json(&json!({"Attributes": {
            "QueueArn": arn(if is_dead_letters(url) { DEAD_LETTER_QUEUE } else { QUEUE }),
            "ApproximateNumberOfMessages": visible.to_string(),
            "ApproximateNumberOfMessagesNotVisible": hidden.to_string(),
            "ApproximateNumberOfMessagesDelayed": "0",
            "VisibilityTimeout": "300",
            "RedrivePolicy": redrive.to_string(),
        }}))
    }

    /// A call of S3, addressed in path style: `/bucket/key`.
    fn s3_call(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, body: Bytes) -> Reply {
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_upload = bucket == UPLOAD_BUCKET;
        let is_listing = listing::parameter(query, "list-type").is_some();
        let is_versioning = listing::parameter(query, "versioning").is_some();
        self.count(match (method, key, is_upload) {
            _ if is_listing => "ListObjectsV2",
            _ if is_versioning => "GetBucketVersioning",
            (&Method::HEAD, _, false) => "HeadBucket",
            (_, "", _) => "HeadBucket",
            (&Method::HEAD, ..) => "HeadObject of an upload",
            (&Method::GET, _, true) => "GetObject of an upload",
            (&Method::GET, key, _) if key.starts_with(".vidstreamx/") => "GetObject of a record",
            (&Method::GET, ..) => "GetObject of a report",
            _ => "PutObject of a record",
        });
        match *method {
            _ if !is_upload && bucket != OUTPUT_BUCKET => s3_error(StatusCode::NOT_FOUND, "NoSuchBucket"),
            _ if is_listing => xml(StatusCode::OK, listing::page(&self.state().store, bucket, query)),
            _ if is_versioning => xml(StatusCode::OK, "<VersioningConfiguration/>".to_owned()),
            Method::HEAD if key.is_empty() => object(StatusCode::OK, Bytes::new(), "\"\"", None),
            Method::GET | Method::HEAD if is_upload => {
                let etag = format!("\"{}\"", self.upload.etag);
                if header("if-match").is_some_and(|wanted| unquote_etag(wanted) != self.upload.etag) {
                    return s3_error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                self.upload_range(&etag, header("range"))
            }
            Method::GET | Method::HEAD => {
                let state = self.state();
                let job = store::job_of_report(key);
                let report = job.filter(|job| state.cluster.has_ended_task(job, Instant::now()));
                match (report, state.store.get(path)) {
                    (Some(job), _) => object(StatusCode::OK, store::report(job).into(), "\"report\"", None),
                    (None, Some(found)) => {
                        object(StatusCode::OK, found.bytes.clone(), &found.etag, found.crc32.as_deref())
                    }
                    (None, None) => s3_error(StatusCode::NOT_FOUND, "NoSuchKey"),
                }
            }
            Method::PUT => {
                let conditions = Conditions {
                    replaces: header("if-match"),
                    is_first: header("if-none-match") == Some("*"),
                };
                let crc32 = header("x-amz-checksum-crc32").map(str::to_owned);
                match self.state().store.put(path, body, crc32, &conditions) {
                    Ok(etag) => object(StatusCode::OK, Bytes::new(), &etag, None),
                    Err((status, code)) => s3_error(status, code),
                }
            }
            _ => s3_error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn upload_range(&self, etag: &str, range: Option<&str>) -> Reply {
        let bytes = &self.upload.bytes;
        let Some(range) = range else { return object(StatusCode::OK, bytes.clone(), etag, None) };
        let Some(range) = store::range(range, bytes.len()) else {
            return s3_error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        };
        let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
        let mut reply = object(StatusCode::PARTIAL_CONTENT, bytes.slice(range), etag, None);
        reply.headers.push((CONTENT_RANGE, content_range));
        reply
    }
}

fn is_dead_letters(url: &str) -> bool {
    url.ends_with(DEAD_LETTER_QUEUE)
}

fn is_back_fill(url: &str) -> bool {
    url.ends_with(BACK_FILL_QUEUE)
}

fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_default()
}

/// Applies a batch call of SQS to each entry.
fn for_each_entry(request: &Value, mut act: impl FnMut(&Value) -> bool) -> Reply {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in request["Entries"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let id = &entry["Id"];
        if act(entry) {
            successful.push(json!({"Id": id, "MessageId": id, "MD5OfMessageBody": ""}));
        } else {
            failed.push(json!({"Id": id, "Code": "ReceiptHandleIsInvalid", "SenderFault": true}));
        }
    }
    json(&json!({"Successful": successful, "Failed": failed}))
}

fn json(body: &Value) -> Reply {
    raw(body.to_string())
}

fn raw(body: String) -> Reply {
    let headers = vec![(CONTENT_TYPE, "application/x-amz-json-1.0".to_owned())];
    Reply { status: StatusCode::OK, headers, body: body.into() }
}

fn error(code: &str) -> Reply {
    Reply {
        status: StatusCode::BAD_REQUEST,
        ..json(&json!({"__type": code, "message": "from the benchmark's endpoints"}))
    }
}

fn s3_error(status: StatusCode, code: &str) -> Reply {
    xml(
        status,
        format!("<Error><Code>{code}</Code><Message>from the benchmark's endpoints</Message></Error>"),
    )
}

fn xml(status: StatusCode, body: String) -> Reply {
    Reply { status, headers: vec![(CONTENT_TYPE, "application/xml".to_owned())], body: body.into() }
}

fn object(status: StatusCode, body: Bytes, etag: &str, crc32: Option<&str>) -> Reply {
    let mut headers = vec![(ETAG, etag.to_owned()), (ACCEPT_RANGES, "bytes".to_owned())];
    headers.extend(crc32.map(|crc32| (HeaderName::from_static("x-amz-checksum-crc32"), crc32.to_owned())));
    Reply { status, headers, body }
}

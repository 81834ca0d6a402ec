//! What the consumer talks to in `make bench-consumer`: the parts of SQS, ECS and S3 that it uses, with their
//! semantics, in memory. Every call is answered after a set time, so that what is measured is the consumer.
//!
//! Below `/-/` is what the benchmark itself asks: `GET counts`, `POST fill?count`, `POST end-tasks`.

mod cluster;
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

use crate::{
    cluster::Cluster,
    queue::Queue,
    store::{Conditions, OUTPUT_BUCKET, Store, UPLOAD_BUCKET, Upload},
};

/// SQS, ECS and S3 in memory, for `make bench-consumer`.
#[derive(Debug, Parser)]
struct Flags {
    /// How long every call takes
    #[arg(long, default_value = "50")]
    latency_ms: u64,
    /// How long tasks run
    #[arg(long, default_value = "60")]
    task_seconds: f64,
    /// Uploads whose events are in the queue at first
    #[arg(long, default_value = "0")]
    uploads: u64,
    /// The video that every upload holds
    #[arg(long)]
    video: PathBuf,
}

/// Everything there is, behind one lock: one thread answers.
struct World {
    state: Mutex<State>,
    /// For polls that wait for a message.
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

struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let video = std::fs::read(&flags.video)?;
    let mut queue = Queue::default();
    queue.fill(flags.uploads);
    let world = Arc::new(World {
        state: Mutex::new(State {
            queue,
            dead_letters: 0,
            cluster: Cluster::new(Duration::from_secs_f64(flags.task_seconds)),
            store: Store::default(),
            calls: BTreeMap::new(),
        }),
        filled: Notify::new(),
        latency: Duration::from_millis(flags.latency_ms),
        upload: Upload { bytes: video.into(), etag: "b21b84d653bb07b05b1e6b33684dc11b".to_owned() },
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(world))
}

async fn serve(world: Arc<World>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(world.clone(), stream));
    }
}

async fn connection(world: Arc<World>, stream: TcpStream) {
    let service = service_fn(|request| {
        let world = world.clone();
        async move { world.answer(request).await }
    });
    // A client that goes away is no news.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl World {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = head.uri.path();
        let answer = if let Some(question) = path.strip_prefix("/-/") {
            self.bench(question, head.uri.query().unwrap_or_default())
        } else {
            let answer = match head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
                Some(target) => self.json_call(target, &body).await,
                None => self.s3_call(&head.method, path, &head.headers, body),
            };
            sleep(self.latency).await;
            answer
        };
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        for (name, value) in answer.headers {
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

    fn bench(&self, question: &str, query: &str) -> Answer {
        let now = Instant::now();
        match question {
            "fill" => {
                let count = query.strip_prefix("count=").and_then(|count| count.parse().ok());
                self.state().queue.fill(count.unwrap_or(0));
                self.filled.notify_waiters();
            }
            "end-tasks" => self.state().cluster.end_all(now, Timestamp::now()),
            _ => {}
        }
        let mut state = self.state();
        let (waiting, held) = state.queue.counts(now);
        let (started, running) = state.cluster.counts(now);
        let launching = state.cluster.started.map(|(first, last)| (last - first).as_secs_f64());
        let done = if question == "ends" { state.store.holding(r#""state":"done""#) } else { 0 };
        json(&json!({
            "waiting": waiting, "held": held, "received": state.queue.received, "deleted": state.queue.deleted,
            "dead_letters": state.dead_letters, "started": started, "running": running, "done": done,
            "launching_seconds": launching, "calls": state.calls,
        }))
    }

    /// The two services that speak AWS JSON.
    async fn json_call(&self, target: &str, body: &[u8]) -> Answer {
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
                each(&request, |entry| state.queue.delete(text(entry, "ReceiptHandle")))
            }
            "ChangeMessageVisibility" => {
                let known = self.set_visibility(&request, now);
                if known { json(&json!({})) } else { error("MessageNotInflight") }
            }
            "ChangeMessageVisibilityBatch" => each(&request, |entry| self.set_visibility(entry, now)),
            "SendMessage" => {
                let id = self.send(text(&request, "QueueUrl"), &request);
                json(&json!({"MessageId": id, "MD5OfMessageBody": ""}))
            }
            "SendMessageBatch" => each(&request, |entry| {
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

    async fn receive(&self, request: &Value) -> Answer {
        let number = |field: &str, default| request[field].as_u64().unwrap_or(default);
        let most = usize::try_from(number("MaxNumberOfMessages", 1)).unwrap_or(1).min(10);
        let visibility = Duration::from_secs(number("VisibilityTimeout", 30));
        let until = Instant::now() + Duration::from_secs(number("WaitTimeSeconds", 0));
        if is_dead_letters(text(request, "QueueUrl")) {
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

    fn attributes(&self, url: &str, now: Instant) -> Answer {
        let (waiting, held) = if is_dead_letters(url) { (0, 0) } else { self.state().queue.counts(now) };
        let arn = |name: &str| format!("arn:aws:sqs:us-east-1:123456789012:{name}");
        let redrive = json!({"deadLetterTargetArn": arn(DEAD_LETTER_QUEUE), "maxReceiveCount": 10});
        json(&json!({"Attributes": {
            "QueueArn": arn(if is_dead_letters(url) { DEAD_LETTER_QUEUE } else { QUEUE }),
            "ApproximateNumberOfMessages": waiting.to_string(),
            "ApproximateNumberOfMessagesNotVisible": held.to_string(),
            "ApproximateNumberOfMessagesDelayed": "0",
            "VisibilityTimeout": "300",
            "RedrivePolicy": redrive.to_string(),
        }}))
    }

    /// Path style: `/bucket/key`.
    fn s3_call(&self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Answer {
        let place = path.trim_start_matches('/');
        let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_upload = bucket == UPLOAD_BUCKET;
        self.count(match (method, key, is_upload) {
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
            Method::HEAD if key.is_empty() => object(StatusCode::OK, Bytes::new(), "\"\"", None),
            Method::GET | Method::HEAD if is_upload => {
                let etag = format!("\"{}\"", self.upload.etag);
                if header("if-match").is_some_and(|wanted| wanted.trim_matches('"') != self.upload.etag) {
                    return s3_error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                self.part(&etag, header("range"))
            }
            Method::GET | Method::HEAD => {
                let state = self.state();
                let job = store::job_of_report(key);
                let report = job.filter(|job| state.cluster.has_ended_task_of(job, Instant::now()));
                match (report, state.store.get(place)) {
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
                match self.state().store.put(place, body, crc32, &conditions) {
                    Ok(etag) => object(StatusCode::OK, Bytes::new(), &etag, None),
                    Err((status, code)) => s3_error(status, code),
                }
            }
            _ => s3_error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn part(&self, etag: &str, range: Option<&str>) -> Answer {
        let bytes = &self.upload.bytes;
        let Some(range) = range else { return object(StatusCode::OK, bytes.clone(), etag, None) };
        let Some(range) = store::range(range, bytes.len()) else {
            return s3_error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        };
        let place = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
        let mut answer = object(StatusCode::PARTIAL_CONTENT, bytes.slice(range), etag, None);
        answer.headers.push((CONTENT_RANGE, place));
        answer
    }
}

fn is_dead_letters(url: &str) -> bool {
    url.ends_with(DEAD_LETTER_QUEUE)
}

fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_default()
}

/// The answer to a call of SQS with entries.
fn each(request: &Value, mut act: impl FnMut(&Value) -> bool) -> Answer {
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

fn json(body: &Value) -> Answer {
    raw(body.to_string())
}

fn raw(body: String) -> Answer {
    let headers = vec![(CONTENT_TYPE, "application/x-amz-json-1.0".to_owned())];
    Answer { status: StatusCode::OK, headers, body: body.into() }
}

fn error(code: &str) -> Answer {
    Answer {
        status: StatusCode::BAD_REQUEST,
        ..json(&json!({"__type": code, "message": "as the benchmark has it"}))
    }
}

fn s3_error(status: StatusCode, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>as the benchmark has it</Message></Error>");
    Answer { status, headers: vec![(CONTENT_TYPE, "application/xml".to_owned())], body: body.into() }
}

fn object(status: StatusCode, body: Bytes, etag: &str, crc32: Option<&str>) -> Answer {
    let mut headers = vec![(ETAG, etag.to_owned()), (ACCEPT_RANGES, "bytes".to_owned())];
    headers.extend(crc32.map(|crc32| (HeaderName::from_static("x-amz-checksum-crc32"), crc32.to_owned())));
    Answer { status, headers, body }
}

//! S3 in memory, on a port of its own, with faults on request: what a bucket does to the task on a bad day.
//!
//! Path style, one page of 1,000 keys, no versions, signatures and checksums unchecked.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_sdk_s3::{Client, config};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{
        CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, RANGE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    task::AbortHandle,
};

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Get,
    Put,
    List,
    Delete,
    DeleteMany,
    CreateMultipart,
    Part,
    CompleteMultipart,
    AbortMultipart,
}

/// What becomes of a call instead.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// 500 InternalError.
    Internal,
    /// 503 SlowDown.
    SlowDown,
    /// The connection is reset: of a read in the middle of the body, of a write before its body is read.
    Reset,
    /// The connection is closed in the middle of the body that was announced.
    Torn,
    /// Half of the body, announced as if it were all of it.
    Half,
    /// The right number of bytes, from the object's beginning.
    OtherRange,
    /// Of a read half of the body and then nothing; a write is taken, without effect, and never answered.
    Stall,
    /// It takes effect, and the connection is closed without an answer.
    Unanswered,
    /// The object gets another content before the call is answered.
    Replaced(Bytes),
}

/// A fault of the calls of one kind for keys with certain words in them: of those, the ones from `first` on,
/// `count` of them.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    kind: Kind,
    key: &'static str,
    first: usize,
    count: usize,
    fault: Fault,
    seen: usize,
}

/// The first call of its kind for a key with these words; [`Plan::from`] and [`Plan::times`] change that.
pub(crate) fn fail(kind: Kind, key: &'static str, fault: Fault) -> Plan {
    Plan { kind, key, first: 0, count: 1, fault, seen: 0 }
}

impl Plan {
    /// Beginning with this one, the first being 0.
    pub(crate) fn from(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// As many in a row.
    pub(crate) fn times(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// Each one.
    pub(crate) fn always(self) -> Self {
        self.times(usize::MAX)
    }

    fn strikes(&mut self, call: &Call) -> Option<Fault> {
        if self.kind != call.kind || !call.key.contains(self.key) {
            return None;
        }
        let number = self.seen;
        self.seen += 1;
        (number >= self.first && number - self.first < self.count).then(|| self.fault.clone())
    }
}

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub kind: Kind,
    /// `bucket/key`; of a listing `bucket/prefix`.
    pub key: String,
    /// The first and last byte asked for.
    pub range: Option<(usize, usize)>,
    pub at: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// By `bucket/key`.
    objects: BTreeMap<String, Bytes>,
    /// By upload id: the key, and the parts by number.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Bytes>)>,
    plans: Vec<Plan>,
    calls: Vec<Call>,
    /// Bytes of objects that were sent.
    sent: u64,
}

/// A running server with its buckets.
pub(crate) struct S3 {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    server: AbortHandle,
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl S3 {
    /// Starts it, with nothing in it.
    pub(crate) async fn start(plans: impl IntoIterator<Item = Plan>) -> Self {
        Self::slow(plans, Duration::ZERO).await
    }

    /// Starts one that takes its time before each answer.
    pub(crate) async fn slow(plans: impl IntoIterator<Item = Plan>, delay: Duration) -> Self {
        let state = State { plans: plans.into_iter().collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, state.clone(), delay)).abort_handle();
        Self { state, address, server }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts an object there, by `bucket/key`.
    pub(crate) fn put(&self, key: &str, content: Bytes) {
        self.state().objects.insert(key.into(), content);
    }

    /// All objects below `bucket/prefix`, by what follows it.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeMap<String, Bytes> {
        let state = self.state();
        let below = state.objects.iter().filter_map(|(key, content)| {
            let name = key.strip_prefix(prefix)?;
            Some((name.to_owned(), content.clone()))
        });
        below.collect()
    }

    /// Every call so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls of a kind there were for keys with certain words in them.
    pub(crate) fn count(&self, kind: Kind, key: &str) -> usize {
        self.state().calls.iter().filter(|call| call.kind == kind && call.key.contains(key)).count()
    }

    /// Bytes of objects that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// The SDK's client for it.
    pub(crate) fn client(&self) -> Client {
        let config = config::Builder::new()
            .behavior_version_latest()
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(format!("http://{}", self.address))
            .region(config::Region::new("us-east-1"))
            .credentials_provider(config::Credentials::for_tests())
            .force_path_style(true);
        Client::from_conf(config.build())
    }

    /// A program with nothing in its environment but what it needs to find this S3.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_REGION", "us-east-1")
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
        command
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, delay: Duration) {
    while let Ok((connection, _)) = listener.accept().await {
        connection.set_nodelay(true).unwrap();
        // A second handle on the socket, to have it reset.
        let connection = connection.into_std().unwrap();
        let twin = Arc::new(TcpStream::from_std(connection.try_clone().unwrap()).unwrap());
        let connection = TcpStream::from_std(connection).unwrap();
        let state = state.clone();
        let service = service_fn(move |request| {
            let (state, twin) = (state.clone(), twin.clone());
            async move {
                tokio::time::sleep(delay).await;
                answer(request, &state, &twin).await
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
    }
}

/// A request, read.
struct Asked {
    call: Call,
    headers: HeaderMap,
    query: BTreeMap<String, String>,
    body: Bytes,
}

impl Asked {
    fn header(&self, name: hyper::header::HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    twin: &TcpStream,
) -> io::Result<Response<Content>> {
    let call = call(&request);
    let query = query(request.uri().query().unwrap_or_default());
    let fault = {
        let mut state = state.lock().unwrap();
        state.calls.push(call.clone());
        state.plans.iter_mut().fold(None, |struck, plan| plan.strikes(&call).or(struck))
    };
    let (parts, body) = request.into_parts();
    let reads = matches!(call.kind, Kind::Get);
    if matches!(fault, Some(Fault::Reset)) && !reads {
        twin.set_zero_linger().unwrap();
        return Err(io::Error::other("reset"));
    }
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    // The SDK does so for streams over TLS only.
    assert!(parts.headers.get(CONTENT_ENCODING).is_none(), "{:?}", parts.headers);
    let key = call.key.clone();
    let asked = Asked { call, headers: parts.headers, query, body };
    match &fault {
        Some(Fault::Internal) => return Ok(problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Some(Fault::SlowDown) => return Ok(problem(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Some(Fault::Stall) if !reads => std::future::pending().await,
        Some(Fault::Replaced(content)) => {
            state.lock().unwrap().objects.insert(key.clone(), content.clone());
        }
        _ => {}
    }
    let mut answer = state.lock().unwrap().act(&asked);
    if let Some(fault) = fault {
        let content = answer.body().bytes.clone();
        let half = content.slice(..content.len() / 2);
        let end = match fault {
            Fault::Unanswered => return Err(io::Error::other("unanswered")),
            Fault::Reset => {
                twin.set_zero_linger().unwrap();
                End::Breaks
            }
            Fault::Torn => End::Breaks,
            Fault::Stall => End::Stalls,
            Fault::Half => {
                answer.headers_mut().insert(CONTENT_LENGTH, half.len().into());
                End::Whole
            }
            Fault::OtherRange => {
                let whole = state.lock().unwrap().objects[&key].clone();
                let other = content.len().min(whole.len());
                let range = format!("bytes 0-{}/{}", other - 1, whole.len());
                answer.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
                *answer.body_mut() = whole.slice(..other).into();
                return Ok(answer);
            }
            _ => return Ok(answer),
        };
        *answer.body_mut() = Content { bytes: half, end };
    }
    state.lock().unwrap().sent += answer.body().bytes.len() as u64;
    Ok(answer)
}

fn call(request: &Request<Incoming>) -> Call {
    let query = query(request.uri().query().unwrap_or_default());
    let has = |name: &str| query.contains_key(name);
    let path = percent_decode_str(request.uri().path().trim_start_matches('/')).decode_utf8().unwrap();
    let kind = match *request.method() {
        Method::HEAD => Kind::Head,
        Method::GET if has("list-type") => Kind::List,
        Method::GET => Kind::Get,
        Method::PUT if has("partNumber") => Kind::Part,
        Method::PUT => Kind::Put,
        Method::DELETE if has("uploadId") => Kind::AbortMultipart,
        Method::DELETE => Kind::Delete,
        Method::POST if has("delete") => Kind::DeleteMany,
        Method::POST if has("uploads") => Kind::CreateMultipart,
        Method::POST if has("uploadId") => Kind::CompleteMultipart,
        _ => panic!("not in this S3: {request:?}"),
    };
    let key = match kind {
        Kind::List => format!("{}/{}", path.trim_end_matches('/'), query.get("prefix").map_or("", |p| p)),
        _ => path.trim_end_matches('/').to_owned(),
    };
    let range = request.headers().get(RANGE).map(|range| {
        let (first, last) =
            range.to_str().unwrap().strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
        (first.parse().unwrap(), last.parse().unwrap_or(usize::MAX))
    });
    Call { kind, key, range, at: Instant::now() }
}

fn query(query: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Stable, and another one for another content: all that an ETag is.
fn etag(content: &Bytes) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

impl State {
    fn act(&mut self, asked: &Asked) -> Response<Content> {
        let key = &asked.call.key;
        match asked.call.kind {
            Kind::Head | Kind::Get => self.read(asked),
            Kind::Put => {
                let now = self.objects.get(key).map(etag);
                let refused = match (asked.header(IF_MATCH), asked.header(IF_NONE_MATCH)) {
                    (Some(wanted), _) => now.as_deref() != Some(wanted),
                    (_, Some("*")) => now.is_some(),
                    _ => false,
                };
                if refused {
                    return problem(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                let etag = etag(&asked.body);
                self.objects.insert(key.clone(), asked.body.clone());
                with_etag(&etag)
            }
            Kind::List => self.list(asked),
            Kind::Delete => {
                self.objects.remove(key);
                empty(StatusCode::NO_CONTENT)
            }
            Kind::DeleteMany => {
                for name in elements(&asked.body, "Key") {
                    self.objects.remove(&format!("{key}/{name}"));
                }
                xml("<DeleteResult/>".into())
            }
            Kind::CreateMultipart => {
                let id = format!("upload-{}", self.calls.len());
                self.uploads.insert(id.clone(), (key.clone(), BTreeMap::new()));
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            Kind::Part => {
                let Some((_, parts)) = self.uploads.get_mut(asked.parameter("uploadId")) else {
                    return problem(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                parts.insert(asked.parameter("partNumber").parse().unwrap(), asked.body.clone());
                with_etag(&etag(&asked.body))
            }
            Kind::CompleteMultipart => {
                let Some((key, parts)) = self.uploads.remove(asked.parameter("uploadId")) else {
                    return problem(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let numbers = elements(&asked.body, "PartNumber");
                let content =
                    numbers.iter().map(|number| parts[&number.parse().unwrap()].clone()).collect::<Vec<_>>();
                let content = Bytes::from(content.concat());
                let etag = etag(&content);
                self.objects.insert(key, content);
                xml(format!(
                    "<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
                ))
            }
            Kind::AbortMultipart => {
                self.uploads.remove(asked.parameter("uploadId"));
                empty(StatusCode::NO_CONTENT)
            }
        }
    }

    fn read(&self, asked: &Asked) -> Response<Content> {
        let Some(content) = self.objects.get(&asked.call.key) else {
            return problem(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let etag = etag(content);
        if asked.header(IF_MATCH).is_some_and(|wanted| wanted != etag) {
            return problem(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let mut response = with_etag(&etag);
        if asked.call.kind == Kind::Head {
            response.headers_mut().insert(CONTENT_LENGTH, content.len().into());
            return response;
        }
        *response.body_mut() = content.clone().into();
        if let Some((first, last)) = asked.call.range {
            let last = last.min(content.len().saturating_sub(1));
            if first > last || content.is_empty() {
                return problem(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{last}/{}", content.len());
            response.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
            *response.body_mut() = content.slice(first..=last).into();
        }
        response
    }

    /// Keys after the continuation token, which is the last key of the page before.
    fn list(&self, asked: &Asked) -> Response<Content> {
        let (bucket, prefix) = asked.call.key.split_once('/').unwrap();
        let most = asked.parameter("max-keys").parse().unwrap_or(1000);
        let after = asked.parameter("continuation-token").max(asked.parameter("start-after"));
        let below = self.objects.iter().filter_map(|(key, content)| {
            let key = key.strip_prefix(bucket)?.strip_prefix('/')?;
            (key.starts_with(prefix) && key > after).then_some((key, content))
        });
        let mut page: Vec<_> = below.take(most + 1).collect();
        let more = page.len() > most;
        page.truncate(most);
        let next = page.last().filter(|_| more).map_or_else(String::new, |(key, _)| {
            format!("<NextContinuationToken>{}</NextContinuationToken>", escape(key))
        });
        let contents: String = page
            .iter()
            .map(|(key, content)| {
                format!(
                    "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag></Contents>",
                    escape(key),
                    content.len(),
                    escape(&etag(content))
                )
            })
            .collect();
        xml(format!(
            "<ListBucketResult><IsTruncated>{more}</IsTruncated><KeyCount>{}</KeyCount>{next}{contents}\
             </ListBucketResult>",
            page.len()
        ))
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The texts of all elements of a name.
fn elements(body: &Bytes, name: &str) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let all = text.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap());
    all.map(|text| text.replace("&quot;", "\"").replace("&lt;", "<").replace("&amp;", "&")).collect()
}

fn empty(status: StatusCode) -> Response<Content> {
    Response::builder().status(status).body(Bytes::new().into()).unwrap()
}

fn with_etag(etag: &str) -> Response<Content> {
    Response::builder().header(ETAG, etag).body(Bytes::new().into()).unwrap()
}

fn xml(text: String) -> Response<Content> {
    Response::new(Bytes::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")).into())
}

fn problem(status: StatusCode, code: &str) -> Response<Content> {
    let mut response = xml(format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>"));
    *response.status_mut() = status;
    response
}

/// A body, and how it ends.
struct Content {
    bytes: Bytes,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    /// The connection is closed, although more was announced.
    Breaks,
    /// Nothing more comes, for as long as the client waits.
    Stalls,
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, end: End::Whole }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Breaks => Poll::Ready(Some(Err(io::Error::other("broken off")))),
            End::Stalls => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Whole) && self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Whole => SizeHint::with_exact(self.bytes.len() as u64),
            End::Breaks | End::Stalls => SizeHint::with_exact(2 * self.bytes.len() as u64 + 1),
        }
    }
}

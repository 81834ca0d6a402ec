//! S3 in memory behind an HTTP server of its own, with planned faults.
//!
//! [`object_store`] has the semantics of S3, [`faults`] the failing calls and bodies. The server accepts only
//! path-style addresses, has no versions, and does not check signatures and checksums.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod faults;
mod object_store;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use aws_sdk_s3::{Client, config};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, RANGE},
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

use crate::common::transcoder;
use faults::{Content, End, Fault, FaultPlan};
use object_store::{ObjectStore, error, etag};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
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

/// A received call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub operation: Operation,
    /// `bucket/key`; for a listing `bucket/prefix`.
    pub key: String,
    /// The first and last requested byte.
    pub range: Option<(usize, usize)>,
}

/// The object in a received [`Operation::Put`] call, even if the call fails.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// `bucket/key`.
    pub key: String,
    pub content: Bytes,
    pub cache_control: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    store: ObjectStore,
    plans: Vec<FaultPlan>,
    calls: Vec<Call>,
    writes: Vec<Write>,
    bytes_sent: u64,
}

/// A running server with its buckets.
pub(crate) struct FakeS3 {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    server: AbortHandle,
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeS3 {
    /// Starts a server without objects.
    pub(crate) async fn start(plans: impl IntoIterator<Item = FaultPlan>) -> Self {
        let state = State { plans: plans.into_iter().collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, state.clone())).abort_handle();
        Self { state, address, server }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Stores an object at `bucket/key`. Returns its ETag, in quotes.
    pub(crate) fn put(&self, key: &str, content: Bytes) -> String {
        let etag = etag(&content);
        self.state().store.objects.insert(key.into(), content);
        etag
    }

    /// All objects below `bucket/prefix`, by the rest of the key.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeMap<String, Bytes> {
        let state = self.state();
        let below = state.store.objects.iter().filter_map(|(key, content)| {
            let name = key.strip_prefix(prefix)?;
            Some((name.to_owned(), content.clone()))
        });
        below.collect()
    }

    /// The number of calls of an operation whose key contains `key`.
    pub(crate) fn count(&self, operation: Operation, key: &str) -> usize {
        let calls = &self.state().calls;
        calls.iter().filter(|call| call.operation == operation && call.key.contains(key)).count()
    }

    /// The bodies of all [`Operation::Put`] calls whose key contains `key`.
    pub(crate) fn writes(&self, key: &str) -> Vec<Write> {
        self.state().writes.iter().filter(|write| write.key.contains(key)).cloned().collect()
    }

    /// Total bytes of all response bodies.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.state().bytes_sent
    }

    /// A client of the SDK.
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

    /// The program, with this S3 in its environment.
    pub(crate) fn transcoder(&self) -> Command {
        let mut command = Command::from(transcoder());
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_REGION", "us-east-1")
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
        command
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((connection, _)) = listener.accept().await {
        connection.set_nodelay(true).unwrap();
        // Faults need a second handle of the socket, to reset the connection.
        let connection = connection.into_std().unwrap();
        let handle = Arc::new(TcpStream::from_std(connection.try_clone().unwrap()).unwrap());
        let connection = TcpStream::from_std(connection).unwrap();
        let state = state.clone();
        let service = service_fn(move |request| {
            let (state, handle) = (state.clone(), handle.clone());
            async move { respond(request, &state, &handle).await }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
    }
}

/// A call with its headers, query and body.
struct S3Request {
    call: Call,
    headers: HeaderMap,
    query: BTreeMap<String, String>,
    body: Bytes,
}

impl S3Request {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

async fn respond(
    request: Request<Incoming>,
    state: &Mutex<State>,
    connection: &TcpStream,
) -> io::Result<Response<Content>> {
    let query = parse_query(request.uri().query().unwrap_or_default());
    let call = parse_call(&request, &query);
    let fault = {
        let mut state = state.lock().unwrap();
        state.calls.push(call.clone());
        state.plans.iter_mut().fold(None, |found, plan| plan.fault(&call).or(found))
    };
    let (parts, body) = request.into_parts();
    let is_read = call.operation == Operation::Get;
    if matches!(fault, Some(Fault::Reset)) && !is_read {
        connection.set_zero_linger().unwrap();
        return Err(io::Error::other("reset"));
    }
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    // This server cannot decode `aws-chunked` bodies. The SDK sends them only over TLS.
    assert!(parts.headers.get(CONTENT_ENCODING).is_none(), "{:?}", parts.headers);
    let key = call.key.clone();
    let request = S3Request { call, headers: parts.headers, query, body };
    if request.call.operation == Operation::Put {
        let cache_control = request.header(CACHE_CONTROL).map(str::to_owned);
        let write = Write { key: key.clone(), content: request.body.clone(), cache_control };
        state.lock().unwrap().writes.push(write);
    }
    match &fault {
        Some(Fault::InternalError) => return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Some(Fault::SlowDown) => return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Some(Fault::AccessDenied) => return Ok(error(StatusCode::FORBIDDEN, "AccessDenied")),
        Some(Fault::Stall) if !is_read => std::future::pending().await,
        Some(Fault::Replaced(content)) => {
            state.lock().unwrap().store.objects.insert(key.clone(), content.clone());
        }
        _ => {}
    }
    let mut response = state.lock().unwrap().store.respond(&request);
    if let Some(fault) = fault {
        let content = response.body().bytes.clone();
        let half = content.slice(..content.len() / 2);
        let end = match fault {
            Fault::NoResponse => return Err(io::Error::other("no response")),
            Fault::Reset => {
                connection.set_zero_linger().unwrap();
                End::Breaks
            }
            Fault::Truncated => End::Breaks,
            Fault::Stall => End::Stalls,
            Fault::Half => {
                response.headers_mut().insert(CONTENT_LENGTH, half.len().into());
                End::Complete
            }
            Fault::WrongRange => {
                let object = state.lock().unwrap().store.objects[&key].clone();
                let length = content.len().min(object.len());
                let range = format!("bytes 0-{}/{}", length - 1, object.len());
                response.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
                *response.body_mut() = object.slice(..length).into();
                return Ok(response);
            }
            _ => return Ok(response),
        };
        *response.body_mut() = Content { bytes: half, end };
    }
    state.lock().unwrap().bytes_sent += response.body().bytes.len() as u64;
    Ok(response)
}

fn parse_call(request: &Request<Incoming>, query: &BTreeMap<String, String>) -> Call {
    let has = |name: &str| query.contains_key(name);
    let path = percent_decode_str(request.uri().path().trim_start_matches('/')).decode_utf8().unwrap();
    let operation = match *request.method() {
        Method::HEAD => Operation::Head,
        Method::GET if has("list-type") => Operation::List,
        Method::GET => Operation::Get,
        Method::PUT if has("partNumber") => Operation::Part,
        Method::PUT => Operation::Put,
        Method::DELETE if has("uploadId") => Operation::AbortMultipart,
        Method::DELETE => Operation::Delete,
        Method::POST if has("delete") => Operation::DeleteMany,
        Method::POST if has("uploads") => Operation::CreateMultipart,
        Method::POST if has("uploadId") => Operation::CompleteMultipart,
        _ => panic!("not implemented: {request:?}"),
    };
    let key = match operation {
        Operation::List => {
            format!("{}/{}", path.trim_end_matches('/'), query.get("prefix").map_or("", |prefix| prefix))
        }
        _ => path.trim_end_matches('/').to_owned(),
    };
    let range = request.headers().get(RANGE).map(|range| {
        let (first, last) =
            range.to_str().unwrap().strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
        (first.parse().unwrap(), last.parse().unwrap_or(usize::MAX))
    });
    Call { operation, key, range }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

//! FFmpeg's input: a local file, or an object behind an HTTP server on loopback.
//!
//! FFmpeg must seek, because many files have their index at the end. It must not see credentials, and a
//! presigned URL expires with the credentials that signed it. So FFmpeg requests ranges from this server, and
//! the server reads them from the pinned object.

use std::{
    convert::Infallible,
    io::SeekFrom,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tracing::Instrument;
use vidstreamx_job::DEMUXERS;

use crate::{
    source::{object::PinnedObject, prefetch::Reader},
    store::S3Error,
};

/// Size of the socket's send buffer. The bytes in it are lost when FFmpeg closes the connection to seek, and
/// the system's default is megabytes.
const SOCKET_BUFFER: u32 = 128 << 10;
/// Bytes that the HTTP library buffers before it polls the body: the smallest value that keeps the socket
/// filled.
const WRITE_BUFFER: usize = 64 << 10;
/// Connections that may wait to be accepted. FFmpeg opens one at a time.
const BACKLOG: u32 = 16;

/// The source as FFmpeg opens it.
#[derive(Debug)]
pub(crate) enum Input {
    /// A local file.
    File(PathBuf),
    /// An object behind a loopback server.
    Served(ServedObject),
}

impl Input {
    /// FFmpeg's input arguments, `-i` included. FFmpeg can use only the listed protocols and demuxers, so a
    /// playlist named `.mp4` cannot make it open another file or host.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (protocols, url) = match self {
            Self::File(path) => ("file", format!("file:{}", path.display())),
            Self::Served(object) => ("http,tcp", object.url.clone()),
        };
        ["-protocol_whitelist", protocols, "-format_whitelist", DEMUXERS, "-i", &url]
            .map(str::to_owned)
            .into()
    }

    /// Size in bytes; `None` if the metadata of a local file cannot be read.
    pub(crate) async fn size(&self) -> Option<u64> {
        match self {
            Self::File(path) => tokio::fs::metadata(path).await.ok().map(|metadata| metadata.len()),
            Self::Served(served) => Some(served.reader.object().size),
        }
    }

    /// The bytes `start..end`, cut at the source's end; `None` if a local file cannot be read.
    ///
    /// # Errors
    /// As for [`Reader::bytes`].
    pub(crate) async fn bytes(&self, start: u64, end: u64) -> Result<Option<Bytes>, S3Error> {
        match self {
            Self::File(path) => Ok(read_file(path, start, end).await.ok()),
            Self::Served(served) => {
                let end = end.min(served.reader.object().size);
                served.reader.bytes(start.min(end), end).await.map(Some)
            }
        }
    }

    /// Waits for an error that ends the reading of the source. FFmpeg gets no end of file after such an
    /// error; otherwise the stream of a truncated source would be published.
    pub(crate) async fn failed(&self) -> S3Error {
        match self {
            Self::File(_) => std::future::pending().await,
            Self::Served(object) => {
                let mut failure = object.failure.subscribe();
                match failure.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(error)) => error.clone(),
                    _ => std::future::pending().await,
                }
            }
        }
    }
}

/// An object behind a loopback server. Dropping it stops the server.
#[derive(Debug)]
pub(crate) struct ServedObject {
    reader: Reader,
    url: String,
    failure: Failure,
    server: JoinHandle<()>,
}

/// The error that ended the reading.
type Failure = Arc<watch::Sender<Option<S3Error>>>;
type Body = UnsyncBoxBody<Bytes, Infallible>;

impl ServedObject {
    /// Starts the server.
    ///
    /// # Errors
    /// The system refuses a socket or random bytes.
    pub(crate) async fn start(object: PinnedObject) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Connections inherit the listener's buffer size.
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(BACKLOG)?;
        let mut secret = [0_u8; 16];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
        // A secret path keeps other users of this machine from reading the object.
        let path: Arc<str> = format!("/{:032x}", u128::from_be_bytes(secret)).into();
        let url = format!("http://{}{path}", listener.local_addr()?);
        let failure = Failure::default();
        let reader = Reader::new(object);
        let server = serve(listener, path, reader.clone(), failure.clone());
        let server = tokio::spawn(server.in_current_span());
        Ok(Self { reader, url, failure, server })
    }
}

async fn read_file(path: &Path, start: u64, end: u64) -> std::io::Result<Bytes> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let mut bytes = Vec::new();
    file.take(end.saturating_sub(start)).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

impl Drop for ServedObject {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, path: Arc<str>, reader: Reader, failure: Failure) {
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!("the loopback server cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Without this, a short body waits for the delayed acknowledgement of its header.
        let _ = connection.set_nodelay(true);
        let (path, reader, failure) = (path.clone(), reader.clone(), failure.clone());
        let serve_connection = async move {
            let service = service_fn(move |request| {
                let response = respond(&request, &path, &reader, &failure);
                async move { Ok::<_, Infallible>(response) }
            });
            // FFmpeg closes the connection when it seeks, which the HTTP library reports as an error.
            let _ = hyper::server::conn::http1::Builder::new()
                .max_buf_size(WRITE_BUFFER)
                .serve_connection(TokioIo::new(connection), service)
                .await;
        };
        tokio::spawn(serve_connection.in_current_span());
    }
}

fn respond(request: &Request<Incoming>, path: &str, reader: &Reader, failure: &Failure) -> Response<Body> {
    let empty = |status| {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != path || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return empty(StatusCode::NOT_FOUND);
    }
    let size = reader.object().size;
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((start, end)) = parse_range(range, size) else {
        return empty(StatusCode::RANGE_NOT_SATISFIABLE);
    };
    let mut response = empty(if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    if request.method() == Method::GET {
        let failure = failure.clone();
        let body = reader.stream(start, end).then(move |chunk| {
            let failure = failure.clone();
            async move {
                match chunk {
                    Ok(chunk) => Ok(Frame::data(chunk)),
                    // FFmpeg would treat a closed connection as the end of the file.
                    Err(error) => {
                        failure.send_replace(Some(error));
                        std::future::pending().await
                    }
                }
            }
        });
        *response.body_mut() = BodyExt::boxed_unsync(StreamBody::new(body));
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, header::HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (end - start).into());
    if range.is_some()
        && let Ok(value) = format!("bytes {start}-{}/{}", end.saturating_sub(1), size).try_into()
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}

/// Parses `bytes=a-`, `bytes=a-b` or no header into a half-open range; `None` if it lies outside the object.
fn parse_range(range: Option<&str>, size: u64) -> Option<(u64, u64)> {
    let Some(range) = range else { return Some((0, size)) };
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start: u64 = start.parse().ok()?;
    let end = if end.is_empty() { size } else { end.parse::<u64>().ok()?.saturating_add(1).min(size) };
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::{
        Client,
        operation::get_object::{GetObjectError, GetObjectOutput},
        primitives::ByteStream,
    };
    use aws_smithy_mocks::mock;
    use aws_smithy_types::error::ErrorMetadata;
    use futures::FutureExt;
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    use vidstreamx_job::Exit;

    use super::*;

    #[test]
    fn range_headers_are_parsed() {
        assert_eq!(parse_range(None, 10), Some((0, 10)));
        assert_eq!(parse_range(Some("bytes=0-"), 10), Some((0, 10)));
        assert_eq!(parse_range(Some("bytes=3-5"), 10), Some((3, 6)));
        assert_eq!(parse_range(Some("bytes=3-99"), 10), Some((3, 10)));
        for wrong in ["bytes=10-", "bytes=-5", "bytes=5-3", "items=0-1", "bytes=a-b"] {
            assert_eq!(parse_range(Some(wrong), 10), None, "{wrong}");
        }
    }

    /// A connection that requests bytes 2 to 9 of ten, and the input that serves it.
    async fn fetch(reads: aws_smithy_mocks::Rule) -> (TcpStream, Input) {
        let object = PinnedObject::of_tests(10, &[&reads]).await;
        let served = ServedObject::start(object).await.unwrap();
        let (host, path) = served.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut connection = TcpStream::connect(host).await.unwrap();
        let request =
            format!("GET /{path} HTTP/1.1\r\nHost: a\r\nRange: bytes=2-\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        (connection, Input::Served(served))
    }

    fn body(range: &'static str, bytes: &'static [u8]) -> GetObjectOutput {
        GetObjectOutput::builder().content_range(range).body(ByteStream::from_static(bytes)).build()
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_is_continued_from_its_last_byte() {
        let reads = mock!(Client::get_object)
            .match_requests(|request| matches!(request.range(), Some("bytes=2-9" | "bytes=5-9")))
            .sequence()
            .output(|| body("bytes 2-9/10", b"cde"))
            .output(|| body("bytes 5-9/10", b"fghij"))
            .build();
        let (mut connection, input) = fetch(reads).await;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 206") && answer.ends_with("cdefghij"), "{answer}");
        assert!(answer.contains("content-range: bytes 2-9/10"), "{answer}");
        assert!(input.failed().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn ffmpeg_sees_no_end_of_an_object_that_cannot_be_read() {
        let reads = mock!(Client::get_object)
            .sequence()
            .output(|| body("bytes 2-9/10", b"cde"))
            .error(|| {
                let meta = ErrorMetadata::builder().code("PreconditionFailed").message("it changed");
                GetObjectError::generic(meta.build())
            })
            .build();
        let (mut connection, input) = fetch(reads).await;
        assert_eq!(input.failed().await.exit(), Exit::Obsolete);
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        assert!(tokio::time::timeout(Duration::from_secs(3600), read).await.is_err());
        assert!(answer.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
    }
}

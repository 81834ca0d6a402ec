//! The status endpoint: metrics for Prometheus at `/metrics`, the consumer's health at `/healthz`.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::metrics::Metrics;

/// Maximum duration of a connection. It ends connections of clients that send or read nothing.
const CONNECTION: Duration = Duration::from_secs(10);
/// Maximum number of concurrent connections. Further connections wait.
const MOST_CONNECTIONS: usize = 16;
/// Maximum size of a request's header: hyper's smallest limit. Requests of scrapers have a few hundred bytes.
const MOST_HEADER_BYTES: usize = 8192;
const MOST_HEADERS: usize = 32;
/// Pause after a failed accept, because its cause, such as too many open files, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The content type of [`Metrics::text`].
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The status endpoint cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("--status-addr (VIDSTREAMX_STATUS_ADDR): cannot listen on \"{address}\": {cause}")]
pub(crate) struct StatusError {
    address: SocketAddr,
    cause: io::Error,
}

/// Listens on the address.
///
/// # Errors
/// The address is in use, or does not belong to this machine.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, StatusError> {
    TcpListener::bind(address).await.map_err(|cause| StatusError { address, cause })
}

/// Answers requests while it is polled. Dropping it closes all connections.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Acquiring cannot fail, because the semaphore is never closed.
        let slot = slots.clone().acquire_owned().await;
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                warn!(%error, "status endpoint: a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let metrics = metrics.clone();
        connections.spawn(async move {
            let answering = service_fn(|request| {
                let answer = answer(&request, &metrics);
                async { Ok::<_, Infallible>(answer) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .max_buf_size(MOST_HEADER_BYTES)
                .max_headers(MOST_HEADERS)
                .serve_connection(TokioIo::new(connection), answering);
            // Errors are caused by clients that hang up or do not send HTTP.
            let _ = timeout(CONNECTION, serving).await;
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, form, text) = match (request.uri().path(), request.method()) {
        ("/metrics" | "/healthz", method) if !matches!(*method, Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned())
        }
        ("/metrics", _) => (StatusCode::OK, OPEN_METRICS, metrics.text()),
        ("/healthz", _) => match metrics.health() {
            Ok(why) => (StatusCode::OK, PLAIN, format!("ok: {why}\n")),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
        },
        _ => (StatusCode::NOT_FOUND, PLAIN, "only /metrics and /healthz exist\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, form);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::aws::sqs::QueueKind;

    async fn server() -> (SocketAddr, Arc<Metrics>, AbortOnDropHandle<()>) {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new("videos"));
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, metrics.clone())));
        (address, metrics, serving)
    }

    /// Sends these bytes. Returns the response up to the end of the connection.
    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // Fails if the server closes the connection before it has read the whole request.
        let _ = connection.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        exchange(address, format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn metrics_have_the_format_that_prometheus_reads() {
        let (address, metrics, _serving) = server().await;
        metrics.in_flight(42);
        let answer = ask(address, "GET", "/metrics?name=a").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains("\nvidstreamx_videos_in_flight 42\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn healthz_responds_with_a_status_code_and_a_sentence() {
        let (address, metrics, _serving) = server().await;
        metrics.polled(QueueKind::Uploads);
        let answer = ask(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nok: "), "{answer}");
        metrics.misconfigured(QueueKind::Uploads, "the queue is gone");
        let answer = ask(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("the queue is gone\n"), "{answer}");
        let head = ask(address, "HEAD", "/healthz").await;
        assert!(head.starts_with("HTTP/1.1 503") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn other_requests_are_refused() {
        let (address, _, _serving) = server().await;
        for path in ["/", "/metrics/", "/healthz/../metrics", "/favicon.ico"] {
            assert!(ask(address, "GET", path).await.starts_with("HTTP/1.1 404"), "{path}");
        }
        for method in ["POST", "DELETE", "OPTIONS", "NONSENSE"] {
            let answer = ask(address, method, "/metrics").await;
            assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
        }
        let header = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(20_000));
        assert!(!exchange(address, header.as_bytes()).await.contains("200 OK"));
        let headers = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(100));
        assert!(!exchange(address, headers.as_bytes()).await.contains("200 OK"));
        assert!(!exchange(address, b"\x16\x03\x01\x00\xa5 this is TLS \r\n\r\n").await.contains("200 OK"));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_clients_are_dropped_and_others_are_served() {
        let (address, _, _serving) = server().await;
        let mut silent = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // The paused clock advances when all tasks wait.
        assert!(ask(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200"));
        for mut connection in silent {
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_the_setting() {
        let (address, _, _serving) = server().await;
        let error = listen(address).await.unwrap_err().to_string();
        let expected = format!("--status-addr (VIDSTREAMX_STATUS_ADDR): cannot listen on \"{address}\": ");
        assert!(error.starts_with(&expected) && error.contains("in use"), "{error}");
    }

    #[tokio::test]
    async fn open_connections_end_with_the_server() {
        let (address, _, serving) = server().await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        // The response shows that the first connection was accepted.
        ask(address, "GET", "/healthz").await;
        drop(serving);
        assert!(matches!(connection.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(TcpStream::connect(address).await.is_err());
    }
}

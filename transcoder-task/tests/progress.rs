//! What a job's task writes into the output bucket about how far it is: the program as the consumer starts
//! it, against a server that keeps what it is sent as S3 would.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::HashMap,
    convert::Infallible,
    process::Output,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_RANGE, ETAG, RANGE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, process::Command};
use vidstreamx_job::{Job, Layout, Progress, Report, Source, Stage};

const CLIP: &str = "-loglevel error -f lavfi -i testsrc2=size=640x360:rate=25:duration=6 \
    -f lavfi -i sine=sample_rate=44100:duration=6 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";

/// What the server does with progress.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Keeps,
    Refuses,
    NeverAnswers,
}

/// Buckets in memory, and every progress object in the order they came.
struct Server {
    manner: Manner,
    objects: Mutex<HashMap<String, Bytes>>,
    progress: Mutex<Vec<Bytes>>,
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        match parts.method {
            Method::PUT => {
                let content = body.collect().await.unwrap().to_bytes();
                if path.contains("/.vidstreamx/progress/") {
                    assert_eq!(parts.headers[CACHE_CONTROL], "no-cache");
                    self.progress.lock().unwrap().push(content.clone());
                    match self.manner {
                        Manner::Keeps => {}
                        Manner::Refuses => return status(StatusCode::FORBIDDEN),
                        Manner::NeverAnswers => std::future::pending().await,
                    }
                }
                self.objects.lock().unwrap().insert(path, content);
                status(StatusCode::OK)
            }
            Method::DELETE => {
                self.objects.lock().unwrap().remove(&path);
                status(StatusCode::NO_CONTENT)
            }
            // No earlier attempt has left anything.
            _ if parts.uri.query().is_some_and(|query| query.contains("list-type")) => {
                Response::new(Bytes::from_static(b"<ListBucketResult/>").into())
            }
            _ => match self.objects.lock().unwrap().get(&path) {
                None => status(StatusCode::NOT_FOUND),
                Some(content) => read(content, parts.headers.get(RANGE).map(|range| range.to_str().unwrap())),
            },
        }
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

/// An object, or the range `bytes=0-99` of it.
fn read(content: &Bytes, range: Option<&str>) -> Response<Full<Bytes>> {
    let response = Response::builder().header(ETAG, "\"e\"");
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return response.body(content.clone().into()).unwrap();
    };
    let first = first.parse::<usize>().unwrap();
    let end = last.parse::<usize>().map_or(content.len(), |last| content.len().min(last + 1));
    response
        .status(StatusCode::PARTIAL_CONTENT)
        .header(CONTENT_RANGE, format!("bytes {first}-{}/{}", end - 1, content.len()))
        .body(content.slice(first..end).into())
        .unwrap()
}

/// What became of a job.
struct Made {
    job: Job,
    output: Output,
    server: Arc<Server>,
}

impl Made {
    async fn of(content: Bytes, manner: Manner) -> Self {
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: "clip.mp4".parse().unwrap(),
            version_id: None,
            etag: Some("e".into()),
            size: Some(content.len() as u64),
        };
        // Every format, so that everything that can take time does.
        let profile = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&profile, "formats = [\"hls\", \"dash\", \"mp4\"]\nloudness = -16.0").unwrap();
        let job = Job::new(source, "streams".parse().unwrap(), profile.path().to_str().unwrap().to_owned());
        let objects = Mutex::new(HashMap::from([("/uploads/clip.mp4".to_owned(), content)]));
        let server = Arc::new(Server { manner, objects, progress: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(serve(listener, server.clone()));
        let output = Command::new(env!("CARGO_BIN_EXE_transcoder-task"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(job.to_env())
            .envs([("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_REGION", "us-east-1")])
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .output()
            .await
            .unwrap();
        serving.abort();
        Self { job, output, server }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn object(&self, key: &str) -> Bytes {
        self.server.objects.lock().unwrap()[&format!("/streams/{key}")].clone()
    }

    fn progress(&self) -> Vec<Progress> {
        let all = self.server.progress.lock().unwrap();
        all.iter().map(|json| Progress::parse(json).unwrap()).collect()
    }
}

async fn serve(listener: TcpListener, server: Arc<Server>) {
    while let Ok((connection, _)) = listener.accept().await {
        let server = server.clone();
        let answer = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), answer));
    }
}

async fn clip() -> Bytes {
    let file = tempfile::Builder::new().suffix(".mp4").tempfile().unwrap();
    let mut ffmpeg = Command::new("ffmpeg");
    let output = ffmpeg.args(CLIP.split_whitespace()).arg("-y").arg(file.path()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file.path()).unwrap().into()
}

#[tokio::test]
async fn it_says_how_far_it_is_from_what_the_source_is_to_the_end() {
    let made = Made::of(clip().await, Manner::Keeps).await;
    assert_eq!(made.output.status.code(), Some(0), "{}", made.log());
    let all = made.progress();
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert_eq!((first.stage, first.share), (Stage::Measuring, 0.0));
    assert!(all.windows(2).all(|pair| pair[0].share <= pair[1].share), "{all:#?}");
    assert!(all[..all.len() - 1].iter().all(|progress| progress.share < 1.0), "{all:#?}");
    assert_eq!((last.stage, last.share, last.expected_end), (Stage::Complete, 1.0, None));
    let report = Report::parse(&made.object(&made.job.layout().stable("job.json"))).unwrap();
    assert_eq!((&last.job_id, last.started_at), (&made.job.id, report.timings.started_at));
    let published: Vec<_> = report.renditions.iter().take(2).map(|r| (r.name.as_str(), r.segments)).collect();
    assert_eq!(published, [("360p", 5), ("240p", 5)]);
    let told: Vec<_> = last.rungs.iter().map(|rung| (rung.name.as_str(), rung.segments)).collect();
    assert_eq!(told, published);
    assert!((first.duration_seconds - 6.0).abs() < 0.1 && last.done_seconds == last.duration_seconds);
    assert_eq!(Progress::parse(&made.object(&Layout::progress(&made.job.id))).unwrap(), *last);
    assert!(made.log().contains("rungs=\"360p 240p\""), "{}", made.log());
}

#[tokio::test]
async fn a_video_is_made_where_progress_cannot_be_written() {
    let clip = clip().await;
    let made = Made::of(clip.clone(), Manner::Refuses).await;
    assert_eq!(made.output.status.code(), Some(0), "{}", made.log());
    assert_eq!(made.progress().len(), 1);
    assert_eq!(
        made.log().matches("the task continues without progress reports").count(),
        1,
        "{}",
        made.log()
    );
    let made = Made::of(clip, Manner::NeverAnswers).await;
    assert_eq!(made.output.status.code(), Some(0), "{}", made.log());
}

#[tokio::test]
async fn what_is_no_video_has_failed() {
    let made = Made::of(Bytes::from_static(b"no video"), Manner::Keeps).await;
    assert_eq!(made.output.status.code(), Some(65), "{}", made.log());
    let all = made.progress();
    assert_eq!((all.len(), all[0].stage, all[0].share), (1, Stage::Failed, 0.0));
}

//! Objects, multipart uploads, conditions and listings.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, IF_NONE_MATCH},
};

use super::{Operation, S3Request, faults::Content};

#[derive(Debug, Default)]
pub(super) struct ObjectStore {
    /// By `bucket/key`.
    pub(super) objects: BTreeMap<String, Bytes>,
    /// By upload id: the key, and the parts by number.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Bytes>)>,
    uploads_created: usize,
}

/// A hash of the content, in quotes.
pub(super) fn etag(content: &Bytes) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

impl ObjectStore {
    pub(super) fn respond(&mut self, request: &S3Request) -> Response<Content> {
        let key = &request.call.key;
        match request.call.operation {
            Operation::Head | Operation::Get => self.read(request),
            Operation::Put => {
                let current = self.objects.get(key).map(etag);
                let refused = match (request.header(IF_MATCH), request.header(IF_NONE_MATCH)) {
                    (Some(expected), _) => current.as_deref() != Some(expected),
                    (_, Some("*")) => current.is_some(),
                    _ => false,
                };
                if refused {
                    return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                let etag = etag(&request.body);
                self.objects.insert(key.clone(), request.body.clone());
                with_etag(&etag)
            }
            Operation::List => self.list(request),
            Operation::Delete => {
                self.objects.remove(key);
                no_content()
            }
            Operation::DeleteMany => {
                for name in elements(&request.body, "Key") {
                    self.objects.remove(&format!("{key}/{name}"));
                }
                xml("<DeleteResult/>".into())
            }
            Operation::CreateMultipart => {
                self.uploads_created += 1;
                let id = format!("upload-{}", self.uploads_created);
                self.uploads.insert(id.clone(), (key.clone(), BTreeMap::new()));
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            Operation::Part => {
                let Some((_, parts)) = self.uploads.get_mut(request.parameter("uploadId")) else {
                    return error(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                parts.insert(request.parameter("partNumber").parse().unwrap(), request.body.clone());
                with_etag(&etag(&request.body))
            }
            Operation::CompleteMultipart => {
                let Some((key, parts)) = self.uploads.remove(request.parameter("uploadId")) else {
                    return error(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let numbers = elements(&request.body, "PartNumber");
                let content: Vec<_> =
                    numbers.iter().map(|number| parts[&number.parse().unwrap()].clone()).collect();
                let content = Bytes::from(content.concat());
                let etag = etag(&content);
                self.objects.insert(key, content);
                xml(format!(
                    "<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
                ))
            }
            Operation::AbortMultipart => {
                self.uploads.remove(request.parameter("uploadId"));
                no_content()
            }
        }
    }

    fn read(&self, request: &S3Request) -> Response<Content> {
        let Some(content) = self.objects.get(&request.call.key) else {
            return error(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let etag = etag(content);
        if request.header(IF_MATCH).is_some_and(|expected| expected != etag) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let mut response = with_etag(&etag);
        if request.call.operation == Operation::Head {
            response.headers_mut().insert(CONTENT_LENGTH, content.len().into());
            return response;
        }
        *response.body_mut() = content.clone().into();
        if let Some((first, last)) = request.call.range {
            let last = last.min(content.len().saturating_sub(1));
            if first > last || content.is_empty() {
                return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{last}/{}", content.len());
            response.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
            *response.body_mut() = content.slice(first..=last).into();
        }
        response
    }

    /// A page of keys. The continuation token is the last key of the previous page.
    fn list(&self, request: &S3Request) -> Response<Content> {
        let (bucket, prefix) = request.call.key.split_once('/').unwrap();
        let max_keys = request.parameter("max-keys").parse().unwrap_or(1000);
        let after = request.parameter("continuation-token").max(request.parameter("start-after"));
        let matches = self.objects.iter().filter_map(|(key, content)| {
            let key = key.strip_prefix(bucket)?.strip_prefix('/')?;
            (key.starts_with(prefix) && key > after).then_some((key, content))
        });
        let mut page: Vec<_> = matches.take(max_keys + 1).collect();
        let truncated = page.len() > max_keys;
        page.truncate(max_keys);
        let next = page.last().filter(|_| truncated).map_or_else(String::new, |(key, _)| {
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
            "<ListBucketResult><IsTruncated>{truncated}</IsTruncated><KeyCount>{}</KeyCount>{next}{contents}\
             </ListBucketResult>",
            page.len()
        ))
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The texts of all elements with a name.
fn elements(body: &Bytes, name: &str) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let all = text.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap());
    all.map(|text| text.replace("&quot;", "\"").replace("&lt;", "<").replace("&amp;", "&")).collect()
}

fn no_content() -> Response<Content> {
    Response::builder().status(StatusCode::NO_CONTENT).body(Bytes::new().into()).unwrap()
}

fn with_etag(etag: &str) -> Response<Content> {
    Response::builder().header(ETAG, etag).body(Bytes::new().into()).unwrap()
}

fn xml(text: String) -> Response<Content> {
    Response::new(Bytes::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")).into())
}

pub(super) fn error(status: StatusCode, code: &str) -> Response<Content> {
    let mut response = xml(format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>"));
    *response.status_mut() = status;
    response
}

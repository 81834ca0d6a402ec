//! S3's ListObjectsV2. An entry has all fields that S3 sends for an object that an SDK wrote.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use crate::store::Store;

const PAGE: usize = 1000;

/// The value of a query parameter, decoded.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// A page of a bucket's listing. The keys of this program need no escapes, neither in XML nor in URLs.
pub(crate) fn page(store: &Store, bucket: &str, query: &str) -> String {
    let prefix = parameter(query, "prefix").unwrap_or_default();
    let after = parameter(query, "continuation-token").unwrap_or_default();
    let mut objects = store.list(bucket, &prefix, &after).peekable();
    let (mut entries, mut count, mut last) = (String::new(), 0, "");
    for (key, object) in objects.by_ref().take(PAGE) {
        // Writing to a `String` cannot fail.
        let _ = write!(
            entries,
            "<Contents><Key>{key}</Key><LastModified>{:.3}</LastModified><ETag>{}</ETag>\
             <ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>\
             <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            object.modified,
            object.etag.replace('"', "&quot;"),
            object.bytes.len(),
        );
        (count, last) = (count + 1, key);
    }
    let next = if objects.peek().is_some() {
        format!("<NextContinuationToken>{last}</NextContinuationToken>")
    } else {
        String::new()
    };
    let encoding = parameter(query, "encoding-type")
        .map(|encoding| format!("<EncodingType>{encoding}</EncodingType>"))
        .unwrap_or_default();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{bucket}</Name>\
         <Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{PAGE}</MaxKeys>{encoding}\
         <IsTruncated>{}</IsTruncated>{next}{entries}</ListBucketResult>",
        !next.is_empty(),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::store::Object;

    #[test]
    fn pages_follow_each_other_within_a_prefix() {
        let mut store = Store::default();
        let object = Object {
            bytes: Bytes::from_static(b"{}"),
            etag: "\"e\"".into(),
            modified: Timestamp::UNIX_EPOCH,
            crc32: None,
        };
        for number in 0..1500 {
            store.insert(format!("streams/a/{number:04}"), object.clone());
        }
        for other in ["streams/b", "uploads/a/0000"] {
            store.insert(other.into(), object.clone());
        }
        let first = page(&store, "streams", "list-type=2&prefix=a%2F");
        assert!(first.contains("<NextContinuationToken>a/0999</NextContinuationToken>"), "{first}");
        assert!(first.contains("<LastModified>1970-01-01T00:00:00.000Z</LastModified>"), "{first}");
        let second = page(&store, "streams", "continuation-token=a%2F0999&list-type=2&prefix=a%2F");
        assert!(second.contains("<IsTruncated>false</IsTruncated><Contents><Key>a/1000</Key>"), "{second}");
        assert_eq!(second.matches("<Key>").count(), 500);
        assert!(page(&store, "streams", "prefix=none").contains("<KeyCount>0</KeyCount>"));
    }
}

//! Output objects in S3.

use std::collections::HashMap;

use aws_sdk_s3::{Client, primitives::ByteStream};
use bytes::Bytes;
use vidstreamx_job::BucketName;

use super::{
    cache_policy::CachePolicy,
    error::StoreError,
    s3::{READ, S3Error, WRITE, uri},
    tag::Tag,
};

/// A prefix of the output bucket.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: BucketName,
    /// The first part of all keys, without a trailing slash; may be empty. A job uses the stem of its layout.
    pub(crate) prefix: String,
}

impl Bucket {
    pub(super) fn key(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }

    pub(super) fn uri(&self, key: &str) -> String {
        uri(&self.name, key)
    }

    pub(super) async fn put(
        &self,
        path: &str,
        policy: CachePolicy,
        content: Bytes,
    ) -> Result<Tag, StoreError> {
        let key = self.key(path);
        let written = self
            .client
            .put_object()
            .bucket(self.name.as_str())
            .key(&key)
            .content_type(policy.content_type())
            .cache_control(policy.cache_control())
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| S3Error::new(WRITE, self.uri(&key), &error))?;
        Ok(Tag::from_etag(written.e_tag.unwrap_or_default()))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let key = self.key(path);
        let object = match self.client.get_object().bucket(self.name.as_str()).key(&key).send().await {
            Ok(object) => object,
            Err(error) => {
                return match S3Error::new(READ, self.uri(&key), &error) {
                    S3Error::Gone { .. } => Ok(None),
                    error => Err(error.into()),
                };
            }
        };
        let content = object.body.collect().await.map_err(|error| S3Error::Transient {
            action: READ,
            object: self.uri(&key),
            detail: error.to_string(),
        })?;
        Ok(Some(content.into_bytes()))
    }

    pub(super) async fn tags(&self, folder: &str) -> Result<HashMap<String, Tag>, StoreError> {
        let prefix = format!("{}/", self.key(folder));
        let pages = self.client.list_objects_v2().bucket(self.name.as_str()).prefix(&prefix);
        let mut pages = pages.into_paginator().send();
        let mut tags = HashMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| S3Error::new("list", self.uri(&prefix), &error))?;
            for object in page.contents.unwrap_or_default() {
                if let (Some(key), Some(etag)) = (object.key, object.e_tag)
                    && let Some(path) = key.strip_prefix(&prefix)
                {
                    tags.insert(format!("{folder}/{path}"), Tag::from_etag(etag));
                }
            }
        }
        Ok(tags)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let key = self.key(path);
        self.client
            .delete_object()
            .bucket(self.name.as_str())
            .key(&key)
            .send()
            .await
            .map_err(|error| S3Error::new("delete", self.uri(&key), &error))?;
        Ok(())
    }
}

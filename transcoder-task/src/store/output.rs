//! The store: one interface to a bucket or a folder.

use std::{collections::HashMap, path::PathBuf};

use bytes::Bytes;
use futures::Stream;

use super::{bucket::Bucket, cache_policy::CachePolicy, error::StoreError, folder, multipart, tag::Tag};

/// A store of objects, which are addressed by relative paths.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// A local folder.
    Folder(PathBuf),
    /// A prefix of a bucket.
    Bucket(Bucket),
}

impl Store {
    /// Writes an object atomically, and returns its tag. [`Store::tags`] returns the same tag as long as the
    /// object keeps this content.
    ///
    /// # Errors
    /// S3 or the file system refuses, or S3 fails after all retries.
    pub(crate) async fn put(
        &self,
        path: &str,
        policy: CachePolicy,
        content: Bytes,
    ) -> Result<Tag, StoreError> {
        match self {
            Self::Folder(root) => folder::put(&root.join(path), content).await,
            Self::Bucket(bucket) => bucket.put(path, policy, content).await,
        }
    }

    /// Writes an object of `size` bytes atomically while its content arrives.
    ///
    /// # Errors
    /// The content ends with an error, or the store fails as in [`Store::put`].
    pub(crate) async fn put_stream<E: From<StoreError>>(
        &self,
        path: &str,
        policy: CachePolicy,
        size: u64,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), E> {
        match self {
            Self::Folder(root) => folder::put_stream(&root.join(path), content).await,
            Self::Bucket(bucket) => multipart::put_stream(bucket, path, policy, size, content).await,
        }
    }

    /// Reads a small object; `None` if it does not exist.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Folder(root) => folder::get(&root.join(path)).await,
            Self::Bucket(bucket) => bucket.get(path).await,
        }
    }

    /// Lists all objects below a folder, by path, with the tags that [`Store::put`] returned for them.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub(crate) async fn tags(&self, folder: &str) -> Result<HashMap<String, Tag>, StoreError> {
        match self {
            Self::Folder(root) => folder::tags(root, folder).await,
            Self::Bucket(bucket) => bucket.tags(folder).await,
        }
    }

    /// Removes an object. A missing object is not an error.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub(crate) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Self::Folder(root) => folder::delete(&root.join(path)).await,
            Self::Bucket(bucket) => bucket.delete(path).await,
        }
    }

    /// The object's file path or `s3://` URI, for logs and errors.
    #[must_use]
    pub(crate) fn locate(&self, path: &str) -> String {
        match self {
            Self::Folder(root) => root.join(path).display().to_string(),
            Self::Bucket(bucket) => bucket.uri(&bucket.key(path)),
        }
    }
}

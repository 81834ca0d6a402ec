//! Where the output goes: a bucket or a folder, with the same names in both.

use std::{io, path::PathBuf};

use aws_sdk_s3::{Client, primitives::ByteStream};
use bytes::Bytes;
use vidstreamx_job::{BucketName, Exit};

use crate::s3::{READ, S3Error};

/// A place for objects, addressed by their paths below it.
#[derive(Debug, Clone)]
pub enum Store {
    /// On this machine.
    Folder(PathBuf),
    /// In S3, below a prefix without a trailing slash (may be empty).
    Bucket {
        /// Authorised to write there.
        client: Client,
        /// The output bucket.
        bucket: BucketName,
        /// The stream's stem.
        prefix: String,
    },
}

/// What an object is, for its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A master or media playlist that will change.
    GrowingPlaylist,
    /// A media playlist that is final.
    FinalPlaylist,
    /// Something at the stable address, which a new upload may replace.
    Stable(&'static str),
    /// Media or an image below the job's id, which never changes.
    Immutable(&'static str),
}

/// Media type of HLS playlists (RFC 8216, section 4).
pub const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Media type of reports.
pub const JSON: &str = "application/json";

impl Kind {
    const fn content_type(self) -> &'static str {
        match self {
            Self::GrowingPlaylist | Self::FinalPlaylist => PLAYLIST,
            Self::Stable(content_type) | Self::Immutable(content_type) => content_type,
        }
    }

    const fn cache_control(self) -> &'static str {
        match self {
            Self::GrowingPlaylist => "public, max-age=1",
            // A growing version may sit in a cache for a second; the final one may stay.
            Self::FinalPlaylist | Self::Immutable(_) => "public, max-age=31536000, immutable",
            Self::Stable(_) => "public, max-age=10",
        }
    }
}

/// Why something could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// In S3.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// On this machine.
    #[error("cannot write {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

impl StoreError {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            // A vanished output bucket is no obsolete source.
            Self::S3(S3Error::Gone { .. } | S3Error::Replaced { .. } | S3Error::Archived { .. }) => {
                Exit::Misconfigured
            }
            Self::S3(error) => error.exit(),
            Self::File { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::Transient,
                _ => Exit::Misconfigured,
            },
        }
    }
}

impl Store {
    /// Writes an object, whole or not at all.
    pub async fn put(&self, path: &str, kind: Kind, content: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                let partial = file.with_added_extension("partial");
                let write = async {
                    if let Some(parent) = file.parent() {
                        tokio::fs::create_dir_all(parent).await?;
                    }
                    tokio::fs::write(&partial, &content).await?;
                    tokio::fs::rename(&partial, &file).await
                };
                write.await.map_err(|error| StoreError::File { path: file.display().to_string(), error })
            }
            Self::Bucket { client, bucket, prefix } => {
                let key = join(prefix, path);
                client
                    .put_object()
                    .bucket(bucket.as_str())
                    .key(&key)
                    .content_type(kind.content_type())
                    .cache_control(kind.cache_control())
                    .body(ByteStream::from(content))
                    .send()
                    .await
                    .map_err(|error| S3Error::new("write", format!("s3://{bucket}/{key}"), &error))?;
                Ok(())
            }
        }
    }

    /// Reads a small object; `None` if there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                match tokio::fs::read(&file).await {
                    Ok(content) => Ok(Some(content.into())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(StoreError::File { path: file.display().to_string(), error }),
                }
            }
            Self::Bucket { client, bucket, prefix } => {
                let key = join(prefix, path);
                let uri = format!("s3://{bucket}/{key}");
                let object = match client.get_object().bucket(bucket.as_str()).key(&key).send().await {
                    Ok(object) => object,
                    Err(error) => {
                        return match S3Error::new(READ, uri, &error) {
                            S3Error::Gone { .. } => Ok(None),
                            error => Err(error.into()),
                        };
                    }
                };
                let content = object.body.collect().await.map_err(|error| S3Error::Trouble {
                    action: READ,
                    object: uri,
                    detail: error.to_string(),
                })?;
                Ok(Some(content.into_bytes()))
            }
        }
    }

    /// Removes an object; one that is not there is no error.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Self::Folder(folder) => {
                let file = folder.join(path);
                match tokio::fs::remove_file(&file).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(StoreError::File { path: file.display().to_string(), error })
                    }
                    _ => Ok(()),
                }
            }
            Self::Bucket { client, bucket, prefix } => {
                let key = join(prefix, path);
                client
                    .delete_object()
                    .bucket(bucket.as_str())
                    .key(&key)
                    .send()
                    .await
                    .map_err(|error| S3Error::new("delete", format!("s3://{bucket}/{key}"), &error))?;
                Ok(())
            }
        }
    }

    /// Where an object is, for people.
    pub fn locate(&self, path: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(path).display().to_string(),
            Self::Bucket { bucket, prefix, .. } => format!("s3://{bucket}/{}", join(prefix, path)),
        }
    }
}

fn join(prefix: &str, path: &str) -> String {
    if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") }
}

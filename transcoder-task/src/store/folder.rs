//! Output objects as files of a local folder.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use tokio::io::AsyncWriteExt;

use super::{error::StoreError, tag::Tag};

fn file_error(path: &Path, error: io::Error) -> StoreError {
    StoreError::File { path: path.display().to_string(), error }
}

/// The path of a file while it is incomplete. The complete file is renamed, so readers see only complete
/// files.
fn partial_path(file: &Path) -> PathBuf {
    file.with_added_extension("partial")
}

pub(super) async fn put(file: &Path, content: Bytes) -> Result<Tag, StoreError> {
    let partial = partial_path(file);
    let write = async {
        if let Some(parent) = file.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        tokio::fs::write(&partial, &content).await?;
        tokio::fs::rename(&partial, file).await
    };
    write.await.map_err(|error| file_error(file, error))?;
    Ok(Tag::of(&content))
}

pub(super) async fn put_stream<E: From<StoreError>>(
    file: &Path,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E> {
    let partial = partial_path(file);
    let written = write_and_rename(file, &partial, content).await;
    if written.is_err() {
        // If this partial file cannot be removed, the next attempt overwrites it.
        let _ = tokio::fs::remove_file(&partial).await;
    }
    written
}

async fn write_and_rename<E: From<StoreError>>(
    file: &Path,
    partial: &Path,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E> {
    let failed = |error| file_error(file, error);
    if let Some(parent) = file.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    let mut writer = tokio::fs::File::create(partial).await.map_err(failed)?;
    let mut content = std::pin::pin!(content);
    while let Some(bytes) = content.try_next().await? {
        writer.write_all(&bytes).await.map_err(failed)?;
    }
    writer.flush().await.map_err(failed)?;
    Ok(tokio::fs::rename(partial, file).await.map_err(failed)?)
}

pub(super) async fn get(file: &Path) -> Result<Option<Bytes>, StoreError> {
    match tokio::fs::read(file).await {
        Ok(content) => Ok(Some(content.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(file, error)),
    }
}

pub(super) async fn delete(file: &Path) -> Result<(), StoreError> {
    match tokio::fs::remove_file(file).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(file, error)),
        _ => Ok(()),
    }
}

pub(super) async fn tags(root: &Path, folder: &str) -> Result<HashMap<String, Tag>, StoreError> {
    let (root, folder) = (root.to_owned(), folder.to_owned());
    let read = tokio::task::spawn_blocking(move || hash_files(&root, &folder));
    read.await.unwrap_or_else(|panic| Err(StoreError::File { path: String::new(), error: panic.into() }))
}

/// Hashes all files below the folder. Skips symbolic links, and uses no recursion.
fn hash_files(root: &Path, folder: &str) -> Result<HashMap<String, Tag>, StoreError> {
    let mut tags = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let failed = |error| file_error(&path, error);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // The task writes only names that are valid UTF-8.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let inner = format!("{folder}/{name}");
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(inner);
            } else if kind.is_file() {
                tags.insert(inner, Tag::of_file(&entry.path()).map_err(failed)?);
            }
        }
    }
    Ok(tags)
}

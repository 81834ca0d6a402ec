//! The checkpoint: a record of the published segments, so that the next attempt need not encode them again.
//!
//! Its files lie in the stream's folder. For each segment they hold the data that manifests need, and the tag
//! of its content. A segment counts only if it still has that tag: a corrupt, truncated or foreign segment is
//! encoded again, with all after it. A file covers a few dozen segments, so that a long video's checkpoint is
//! not rewritten as a whole. The stills for poster and storyboard, which are only used at the end, are also
//! here. A complete job removes its checkpoint.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    package::captions::Captions,
    package::file_names,
    package::init_segment::Init,
    package::presentation::Published,
    package::stills::{self, Stills},
    store::{CachePolicy, JSON, Store, StoreError, Tag},
};

/// Segments per rendition in a checkpoint file: four minutes, about 5 kB per rendition.
const SEGMENTS_PER_FILE: usize = 64;
/// Objects that are read or removed concurrently.
const CONCURRENCY: usize = 8;
/// Schema version of checkpoint files.
const SCHEMA: u32 = 1;

/// A published segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The number of its interval between the plan's boundaries.
    pub(crate) interval: i64,
    /// The data that manifests need.
    pub(crate) published: Published,
    /// True if its first sample is a sync sample.
    pub(crate) starts_with_keyframe: bool,
    pub(crate) captions: Captions,
    /// Tag of its content.
    pub(crate) tag: Tag,
}

/// The intact output of an earlier attempt.
#[derive(Debug, PartialEq)]
pub(crate) struct Recovered {
    /// Renditions in the plan's order, rungs first.
    pub(crate) tracks: Vec<RecoveredTrack>,
    pub(crate) stills: Stills,
}

/// The intact output of one rendition.
#[derive(Debug, PartialEq)]
pub(crate) struct RecoveredTrack {
    pub(crate) init: Init,
    /// From segment number 0 on.
    pub(crate) entries: Vec<Entry>,
}

/// The output of earlier attempts in a folder.
#[derive(Debug, PartialEq)]
pub(crate) enum PriorOutput {
    /// None, or none that players have seen.
    Nothing,
    /// Segments to resume after.
    Checkpoint(Recovered),
    /// Playlists that players may have loaded, but no segments to resume after. Caches may hold the segments
    /// of these playlists.
    Playlists,
}

/// The checkpoint of one stream.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    store: Store,
    /// The stream's folder: `<job id>/<plan id>`.
    folder: String,
    tracks: Vec<Vec<Entry>>,
    /// Numbers of the files to write.
    changed: BTreeSet<usize>,
    stills: usize,
}

/// The content of a checkpoint file.
#[derive(Serialize, Deserialize)]
struct CheckpointFile {
    schema: u32,
    /// In the plan's order.
    tracks: Vec<Vec<SegmentRow>>,
}

/// The fields of an [`Entry`] in this order: interval; start and duration in ticks; number of samples, and of
/// those that repeat a frame; duration of the repeats at its end; bytes;
/// bytes to the end of the first sample; whether the first sample is a sync sample; captions; tag.
#[derive(Serialize, Deserialize)]
struct SegmentRow(i64, u64, u64, usize, usize, u64, u64, u64, bool, Captions, Tag);

impl From<&Entry> for SegmentRow {
    fn from(entry: &Entry) -> Self {
        let Published { start_ticks, duration_ticks, samples, repeats, repeated_ticks, bytes, key_bytes } =
            entry.published;
        let tag = entry.tag.clone();
        let keyframe = entry.starts_with_keyframe;
        Self(
            entry.interval,
            start_ticks,
            duration_ticks,
            samples,
            repeats,
            repeated_ticks,
            bytes,
            key_bytes,
            keyframe,
            entry.captions,
            tag,
        )
    }
}

impl From<SegmentRow> for Entry {
    fn from(row: SegmentRow) -> Self {
        let SegmentRow(
            interval,
            start_ticks,
            duration_ticks,
            samples,
            repeats,
            repeated_ticks,
            bytes,
            key_bytes,
            starts_with_keyframe,
            captions,
            tag,
        ) = row;
        let published =
            Published { start_ticks, duration_ticks, samples, repeats, repeated_ticks, bytes, key_bytes };
        Self { interval, published, starts_with_keyframe, captions, tag }
    }
}

impl CheckpointFile {
    /// Writes a line with the JSON's tag, then the JSON. A damaged or edited file does not match its tag and
    /// is ignored.
    fn write(&self) -> serde_json::Result<Bytes> {
        let json = serde_json::to_vec(self)?;
        let mut bytes = serde_json::to_vec(&Tag::of(&json))?;
        bytes.push(b'\n');
        bytes.extend(json);
        Ok(bytes.into())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', bytes)?;
        let (tag, json) = (&bytes[..end], &bytes[end + 1..]);
        let tag: Tag = serde_json::from_slice(tag).ok()?;
        let file: Self = (tag == Tag::of(json)).then(|| serde_json::from_slice(json).ok())??;
        (file.schema == SCHEMA).then_some(file)
    }
}

impl PriorOutput {
    /// Finds the output for the renditions with these folders; the first `rungs` are video, the others audio.
    /// `stills` is an empty series, to which the recovered stills are added.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn find(
        store: &Store,
        folder: &str,
        tracks: &[String],
        rungs: usize,
        stills: Stills,
    ) -> Result<Self, StoreError> {
        let tags = store.tags(folder).await?;
        let paths: Vec<String> = (0..)
            .map(|number| file_path(folder, number))
            .take_while(|path| tags.contains_key(path))
            .collect();
        let announced = tags.keys().any(|path| path.ends_with(file_names::MEDIA_NAME));
        let not_enough = if announced { Self::Playlists } else { Self::Nothing };
        let mut files = Vec::with_capacity(paths.len());
        for bytes in get_all(store, &paths).await? {
            match bytes.and_then(|bytes| CheckpointFile::read(&bytes)) {
                Some(file) => files.push(file),
                None => break,
            }
        }
        let inits =
            tracks.iter().map(|track| format!("{track}/{}", file_names::INIT_NAME)).collect::<Vec<_>>();
        let inits = get_all(store, &inits).await?;
        let mut rows = rows(files, tracks.len()).into_iter();
        let mut recovered = Vec::with_capacity(tracks.len());
        for (number, (track, init)) in tracks.iter().zip(inits).enumerate() {
            let Some(init) = init.and_then(|init| Init::parse(init).ok()) else { return Ok(not_enough) };
            let entries = rows.next().unwrap_or_default();
            let entries = intact(entries, track, &tags, number >= rungs);
            recovered.push(RecoveredTrack { init, entries });
        }
        if recovered.iter().any(|track| track.entries.is_empty()) {
            return Ok(not_enough);
        }
        Ok(Self::Checkpoint(Recovered {
            tracks: recovered,
            stills: find_stills(store, folder, &tags, stills).await?,
        }))
    }
}

/// The segments of each rendition in all files.
fn rows(files: Vec<CheckpointFile>, tracks: usize) -> Vec<Vec<Entry>> {
    let mut entries: Vec<Vec<Entry>> = vec![Vec::new(); tracks];
    for (number, file) in files.into_iter().enumerate() {
        for (entries, rows) in entries.iter_mut().zip(file.tracks) {
            if entries.len() == number * SEGMENTS_PER_FILE {
                entries.extend(rows.into_iter().take(SEGMENTS_PER_FILE).map(Entry::from));
            }
        }
    }
    entries
}

/// The segments before the first one that has changed or does not continue its predecessor. Audio segments
/// must be contiguous, because two attempts may cut audio at different fragments. Video segments need not be,
/// because the end of a video segment is only known from the next segment.
fn intact(entries: Vec<Entry>, folder: &str, tags: &HashMap<String, Tag>, is_audio: bool) -> Vec<Entry> {
    let mut before: Option<(i64, Published)> = None;
    let numbered = entries.into_iter().enumerate();
    let recovered = numbered.take_while(|(number, entry)| {
        let path = format!("{folder}/{}", file_names::segment_name(*number));
        let follows = before.is_none_or(|(interval, before)| {
            entry.interval > interval
                && entry.published.start_ticks > before.start_ticks
                && (!is_audio || entry.published.start_ticks == before.start_ticks + before.duration_ticks)
        });
        before = Some((entry.interval, entry.published));
        follows && tags.get(&path) == Some(&entry.tag)
    });
    recovered.map(|(_, entry)| entry).collect()
}

/// Reads the stills up to the first missing one.
async fn find_stills(
    store: &Store,
    folder: &str,
    tags: &HashMap<String, Tag>,
    mut stills: Stills,
) -> Result<Stills, StoreError> {
    let prefix = stills_prefix(folder);
    let mut paths: Vec<&String> = tags.keys().filter(|path| path.starts_with(&prefix)).collect();
    paths.sort_unstable();
    for path in paths {
        // The name holds the number of the file's first still.
        match path.cmp(&stills_path(folder, stills.taken())) {
            // The files before this one already hold its stills.
            Ordering::Less => continue,
            Ordering::Equal => {}
            Ordering::Greater => break,
        }
        let bytes = store.get(path).await?.unwrap_or_default();
        stills::split(&bytes).into_iter().for_each(|jpeg| stills.take(jpeg));
    }
    Ok(stills)
}

async fn get_all(store: &Store, paths: &[String]) -> Result<Vec<Option<Bytes>>, StoreError> {
    stream::iter(paths).map(|path| store.get(path)).buffered(CONCURRENCY).try_collect().await
}

impl Checkpoint {
    /// An empty checkpoint for this many renditions.
    pub(crate) fn new(store: Store, folder: String, tracks: usize) -> Self {
        Self { store, folder, tracks: vec![Vec::new(); tracks], changed: BTreeSet::new(), stills: 0 }
    }

    /// Continues the checkpoint of an earlier attempt.
    pub(crate) fn resume(&mut self, recovered: &Recovered) {
        self.tracks = recovered.tracks.iter().map(|track| track.entries.clone()).collect();
        self.stills = recovered.stills.taken();
    }

    /// Adds a rendition's next published segment.
    pub(crate) fn add(&mut self, track: usize, entry: Entry) {
        if let Some(entries) = self.tracks.get_mut(track) {
            self.changed.insert(entries.len() / SEGMENTS_PER_FILE);
            entries.push(entry);
        }
    }

    /// The published segments of each rendition, in the plan's order.
    #[must_use]
    pub(crate) fn tracks(&self) -> &[Vec<Entry>] {
        &self.tracks
    }

    /// Writes the changed files, and these new stills.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn save(&mut self, stills: &[Bytes]) -> Result<(), StoreError> {
        if !stills.is_empty() {
            let path = stills_path(&self.folder, self.stills);
            self.store.put(&path, CachePolicy::Replaceable("image/jpeg"), stills.concat().into()).await?;
            self.stills += stills.len();
        }
        while let Some(number) = self.changed.first().copied() {
            let first = number * SEGMENTS_PER_FILE;
            let rows = |entries: &Vec<Entry>| {
                entries.iter().skip(first).take(SEGMENTS_PER_FILE).map(SegmentRow::from).collect()
            };
            let file = CheckpointFile { schema: SCHEMA, tracks: self.tracks.iter().map(rows).collect() };
            // Numbers and strings always serialize.
            if let Ok(bytes) = file.write() {
                self.store
                    .put(&file_path(&self.folder, number), CachePolicy::Replaceable(JSON), bytes)
                    .await?;
            }
            self.changed.remove(&number);
        }
        Ok(())
    }
}

/// Removes the checkpoint of a complete stream.
///
/// # Errors
/// The store fails.
pub(crate) async fn remove(store: &Store, folder: &str) -> Result<(), StoreError> {
    let tags = store.tags(&format!("{folder}/checkpoint")).await?;
    let mut paths: Vec<&String> = tags.keys().collect();
    // The first file is removed last, because without it the other files are ignored.
    paths.sort_unstable_by(|one, other| other.cmp(one));
    stream::iter(paths).map(|path| store.delete(path)).buffered(CONCURRENCY).try_collect().await
}

fn file_path(folder: &str, number: usize) -> String {
    format!("{folder}/checkpoint/{number:05}.json")
}

fn stills_prefix(folder: &str) -> String {
    format!("{folder}/checkpoint/stills-")
}

fn stills_path(folder: &str, first: usize) -> String {
    format!("{}{first:05}.mjpeg", stills_prefix(folder))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use crate::fixtures::{ffmpeg, folder_store};

    use super::*;

    const FOLDER: &str = "job/plan";
    const MEDIA: CachePolicy = CachePolicy::Immutable("video/mp4");

    struct StoredStream {
        folder: TempDir,
        store: Store,
        checkpoint: Checkpoint,
    }

    fn tracks() -> Vec<String> {
        ["video/240p", "audio/und"].map(|track| format!("{FOLDER}/{track}")).into()
    }

    impl StoredStream {
        /// A rung and its audio with this many published segments each.
        async fn of(segments: [usize; 2]) -> Self {
            let (folder, store) = folder_store();
            let mut checkpoint = Checkpoint::new(store.clone(), FOLDER.into(), 2);
            let init = ffmpeg(
                "-f lavfi -i color=size=64x36:duration=1 -c:v libx264 -frames:v 1 -movflags +empty_moov \
                 -f mp4 pipe:1",
            );
            for (index, track) in tracks().iter().enumerate() {
                store.put(&format!("{track}/init.mp4"), MEDIA, init.clone().into()).await.unwrap();
                for number in 0..segments[index] {
                    let entry = put(&store, track, number, 100 * number as u64).await;
                    checkpoint.add(index, entry);
                }
            }
            checkpoint.save(&[still(0), still(1)]).await.unwrap();
            Self { folder, store, checkpoint }
        }

        async fn prior(&self) -> PriorOutput {
            PriorOutput::find(&self.store, FOLDER, &tracks(), 1, Stills::every(1.0)).await.unwrap()
        }

        async fn recovered(&self) -> Option<Recovered> {
            match self.prior().await {
                PriorOutput::Checkpoint(recovered) => Some(recovered),
                PriorOutput::Nothing | PriorOutput::Playlists => None,
            }
        }

        async fn lengths(&self) -> Option<[usize; 2]> {
            let recovered = self.recovered().await?;
            Some([0, 1].map(|track| recovered.tracks[track].entries.len()))
        }

        fn path(&self, path: &str) -> std::path::PathBuf {
            self.folder.path().join(FOLDER).join(path)
        }
    }

    async fn put(store: &Store, track: &str, number: usize, start_ticks: u64) -> Entry {
        let content = format!("{track} {number} from {start_ticks}");
        let path = format!("{track}/{}", file_names::segment_name(number));
        let tag = store.put(&path, MEDIA, content.into()).await.unwrap();
        let published = Published {
            start_ticks,
            duration_ticks: 100,
            samples: 4,
            repeats: 1,
            repeated_ticks: 25,
            bytes: 20,
            key_bytes: 10,
        };
        let captions = Captions::NONE;
        Entry { interval: number as i64, published, starts_with_keyframe: true, captions, tag }
    }

    fn still(number: u8) -> Bytes {
        Bytes::from(vec![0xff, 0xd8, 0xff, number, 0xff, 0xd9])
    }

    fn stills(numbers: &[u8]) -> Stills {
        let mut stills = Stills::every(1.0);
        numbers.iter().for_each(|number| stills.take(still(*number)));
        stills
    }

    #[tokio::test]
    async fn a_written_checkpoint_is_found_again() {
        let mut stream = StoredStream::of([150, 140]).await;
        stream.checkpoint.save(&[still(2)]).await.unwrap();
        let recovered = stream.recovered().await.unwrap();
        assert_eq!(recovered.stills, stills(&[0, 1, 2]));
        assert_eq!(recovered.tracks[0].init.codecs.get(..5), Some("avc1."));
        for (track, written) in recovered.tracks.iter().zip(&stream.checkpoint.tracks) {
            assert_eq!(&track.entries, written);
        }
    }

    #[tokio::test]
    async fn without_a_checkpoint_nothing_is_recovered() {
        let stream = StoredStream::of([3, 3]).await;
        let of_another_plan = ["job/other/video/240p".to_owned()];
        let of_another_plan =
            PriorOutput::find(&stream.store, "job/other", &of_another_plan, 1, Stills::every(1.0))
                .await
                .unwrap();
        assert_eq!(of_another_plan, PriorOutput::Nothing);
        remove(&stream.store, FOLDER).await.unwrap();
        assert_eq!(stream.prior().await, PriorOutput::Nothing);
        let playlist = format!("{FOLDER}/audio/und/index.m3u8");
        stream.store.put(&playlist, CachePolicy::GrowingPlaylist, Bytes::new()).await.unwrap();
        assert_eq!(stream.prior().await, PriorOutput::Playlists);
        assert!(stream.path("video/240p/seg-00002.m4s").exists());
    }

    #[tokio::test]
    async fn a_changed_segment_ends_the_recovered_output() {
        let stream = StoredStream::of([6, 6]).await;
        std::fs::write(stream.path("video/240p/seg-00004.m4s"), "corrupt").unwrap();
        assert_eq!(stream.lengths().await, Some([4, 6]));
        std::fs::remove_file(stream.path("audio/und/seg-00002.m4s")).unwrap();
        assert_eq!(stream.lengths().await, Some([4, 2]));
        std::fs::write(stream.path("video/240p/init.mp4"), "corrupt").unwrap();
        assert_eq!(stream.lengths().await, None);
    }

    #[tokio::test]
    async fn an_edited_checkpoint_file_is_ignored() {
        let stream = StoredStream::of([70, 70]).await;
        let path = stream.path("checkpoint/00001.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("100", "101", 1)).unwrap();
        assert_eq!(stream.lengths().await, Some([64, 64]));
        std::fs::write(stream.path("checkpoint/00000.json"), "{}").unwrap();
        assert_eq!(stream.lengths().await, None);
    }

    #[tokio::test]
    async fn audio_of_two_attempts_with_different_cuts_is_not_joined() {
        let mut stream = StoredStream::of([66, 66]).await;
        let mut recovered = stream.recovered().await.unwrap();
        recovered.tracks[1].entries.truncate(63);
        stream.checkpoint.resume(&recovered);
        // The next attempt cuts the audio one fragment earlier, and reaches the end of the first file.
        let track = &tracks()[1];
        let mut entry = put(&stream.store, track, 63, 6300).await;
        entry.published.duration_ticks = 90;
        stream.checkpoint.add(1, entry);
        stream.checkpoint.save(&[]).await.unwrap();
        assert_eq!(stream.lengths().await, Some([66, 64]));
    }

    #[tokio::test]
    async fn stills_are_recovered_up_to_the_first_missing_one() {
        let mut stream = StoredStream::of([1, 1]).await;
        for number in [2, 3] {
            stream.checkpoint.save(&[still(number)]).await.unwrap();
        }
        std::fs::remove_file(stream.path("checkpoint/stills-00002.mjpeg")).unwrap();
        assert_eq!(stream.recovered().await.unwrap().stills, stills(&[0, 1]));
        std::fs::write(stream.path("checkpoint/stills-00000.mjpeg"), &still(0)[..4]).unwrap();
        assert_eq!(stream.recovered().await.unwrap().stills.taken(), 0);
    }
}

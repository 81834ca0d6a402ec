//! What of a stream is published already, so that the next attempt at the job need not make it again.
//!
//! Beside the stream lie notes: of every segment what manifests need to know, and the tag of its content. A note is
//! believed only if the segment still has that tag, so a segment that is corrupt, cut off or of another hand is made
//! again, with all that follow it. Notes are written a few dozens of segments each, so that a long video's are not
//! written over and over. The stills of poster and storyboard, which are made into pictures only at the end, lie there
//! too. When the job is done, all of it is removed.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    package::presentation::{self, Published},
    package::segmenter::{self, Init},
    package::stills::{self, Stills},
    store::{CachePolicy, JSON, Store, StoreError, Tag},
};

/// Segments of each rendition in a note: four minutes, some 5 kB for each rendition.
const SEGMENTS_PER_NOTE: usize = 64;
/// Objects that are read or removed at a time.
const AT_ONCE: usize = 8;
/// Of the notes' layout.
const SCHEMA: u32 = 1;

/// A segment that is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Which interval between boundaries it fills.
    pub interval: i64,
    /// As for manifests.
    pub published: Published,
    /// Whether its first sample is a sync sample.
    pub starts_with_keyframe: bool,
    /// Of its content.
    pub tag: Tag,
}

/// What an earlier attempt left that is as it published it.
#[derive(Debug, PartialEq)]
pub struct Recovered {
    /// Renditions in the plan's order, rungs first.
    pub tracks: Vec<Track>,
    /// From the first on.
    pub stills: Stills,
}

/// What is recovered of a rendition.
#[derive(Debug, PartialEq)]
pub struct Track {
    /// The init segment.
    pub init: Init,
    /// From number 0 on.
    pub entries: Vec<Entry>,
}

/// What an earlier attempt left in a folder.
#[derive(Debug, PartialEq)]
pub enum PriorOutput {
    /// Nothing that anybody knows of.
    Nothing,
    /// Something to go on from.
    Checkpoint(Recovered),
    /// Playlists that viewers may have, and caches may have what they list; but not enough to go on from.
    Playlists,
}

/// Notes of what is published.
#[derive(Debug)]
pub struct Checkpoint {
    store: Store,
    /// The stream's: `<job id>/<plan id>`.
    folder: String,
    tracks: Vec<Vec<Entry>>,
    /// Notes to be written.
    changed: BTreeSet<usize>,
    stills: usize,
}

#[derive(Serialize, Deserialize)]
struct Note {
    schema: u32,
    /// In the plan's order.
    tracks: Vec<Vec<SegmentRow>>,
}

/// Interval, start and duration in ticks, samples, bytes, bytes up to the end of the first sample, whether that is a sync
/// sample, tag.
#[derive(Serialize, Deserialize)]
struct SegmentRow(i64, u64, u64, usize, u64, u64, bool, Tag);

impl From<&Entry> for SegmentRow {
    fn from(entry: &Entry) -> Self {
        let Published { start_ticks, duration_ticks, samples, bytes, key_bytes } = entry.published;
        let tag = entry.tag.clone();
        let keyframe = entry.starts_with_keyframe;
        Self(entry.interval, start_ticks, duration_ticks, samples, bytes, key_bytes, keyframe, tag)
    }
}

impl From<SegmentRow> for Entry {
    fn from(row: SegmentRow) -> Self {
        let SegmentRow(
            interval,
            start_ticks,
            duration_ticks,
            samples,
            bytes,
            key_bytes,
            starts_with_keyframe,
            tag,
        ) = row;
        let published = Published { start_ticks, duration_ticks, samples, bytes, key_bytes };
        Self { interval, published, starts_with_keyframe, tag }
    }
}

impl Note {
    /// JSON behind the tag of it: nobody's slip of the pen is taken for a note.
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
        let note: Self = (tag == Tag::of(json)).then(|| serde_json::from_slice(json).ok())??;
        (note.schema == SCHEMA).then_some(note)
    }
}

impl PriorOutput {
    /// What is there of the renditions whose folders these are, `rungs` of pictures first and then sound.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn find(
        store: &Store,
        folder: &str,
        tracks: &[String],
        rungs: usize,
        stills: Stills,
    ) -> Result<Self, StoreError> {
        let tags = store.tags(folder).await?;
        let paths: Vec<String> = (0..)
            .map(|number| note_path(folder, number))
            .take_while(|path| tags.contains_key(path))
            .collect();
        let announced = tags.keys().any(|path| path.ends_with(presentation::MEDIA_NAME));
        let too_little = if announced { Self::Playlists } else { Self::Nothing };
        let mut notes = Vec::with_capacity(paths.len());
        for bytes in get_all(store, &paths).await? {
            match bytes.and_then(|bytes| Note::read(&bytes)) {
                Some(note) => notes.push(note),
                None => break,
            }
        }
        let inits =
            tracks.iter().map(|track| format!("{track}/{}", presentation::INIT_NAME)).collect::<Vec<_>>();
        let inits = get_all(store, &inits).await?;
        let mut rows = rows(notes, tracks.len()).into_iter();
        let mut recovered = Vec::with_capacity(tracks.len());
        for (number, (track, init)) in tracks.iter().zip(inits).enumerate() {
            let Some(init) = init.and_then(|init| segmenter::init(init).ok()) else { return Ok(too_little) };
            let entries = rows.next().unwrap_or_default();
            let entries = as_published(entries, track, &tags, number >= rungs);
            recovered.push(Track { init, entries });
        }
        if recovered.iter().any(|track| track.entries.is_empty()) {
            return Ok(too_little);
        }
        Ok(Self::Checkpoint(Recovered {
            tracks: recovered,
            stills: find_stills(store, folder, &tags, stills).await?,
        }))
    }
}

/// Of each rendition, from the first segment on.
fn rows(notes: Vec<Note>, tracks: usize) -> Vec<Vec<Entry>> {
    let mut entries: Vec<Vec<Entry>> = vec![Vec::new(); tracks];
    for (number, note) in notes.into_iter().enumerate() {
        for (entries, rows) in entries.iter_mut().zip(note.tracks) {
            if entries.len() == number * SEGMENTS_PER_NOTE {
                entries.extend(rows.into_iter().take(SEGMENTS_PER_NOTE).map(Entry::from));
            }
        }
    }
    entries
}

/// The segments up to the first one that is not as it was published, or that does not follow on the one before: two
/// attempts may cut sound a fragment apart. (When a segment of pictures ends is known only from the next one.)
fn as_published(
    entries: Vec<Entry>,
    folder: &str,
    tags: &HashMap<String, Tag>,
    is_sound: bool,
) -> Vec<Entry> {
    let mut before: Option<(i64, Published)> = None;
    let numbered = entries.into_iter().enumerate();
    let recovered = numbered.take_while(|(number, entry)| {
        let path = format!("{folder}/{}", presentation::segment_name(*number));
        let follows = before.is_none_or(|(interval, before)| {
            entry.interval > interval
                && entry.published.start_ticks > before.start_ticks
                && (!is_sound || entry.published.start_ticks == before.start_ticks + before.duration_ticks)
        });
        before = Some((entry.interval, entry.published));
        follows && tags.get(&path) == Some(&entry.tag)
    });
    recovered.map(|(_, entry)| entry).collect()
}

/// Takes the stills that are there up to the first one that is missing.
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
        // Its name says which still is its first.
        match path.cmp(&stills_path(folder, stills.taken())) {
            // Of an attempt that had more.
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
    stream::iter(paths).map(|path| store.get(path)).buffered(AT_ONCE).try_collect().await
}

impl Checkpoint {
    /// Notes of `tracks` renditions of which nothing is published.
    pub fn new(store: Store, folder: String, tracks: usize) -> Self {
        Self { store, folder, tracks: vec![Vec::new(); tracks], changed: BTreeSet::new(), stills: 0 }
    }

    /// Goes on with what was noted.
    pub fn resume(&mut self, recovered: &Recovered) {
        self.tracks = recovered.tracks.iter().map(|track| track.entries.clone()).collect();
        self.stills = recovered.stills.taken();
    }

    /// A rendition's next segment is published.
    pub fn add(&mut self, track: usize, entry: Entry) {
        if let Some(entries) = self.tracks.get_mut(track) {
            self.changed.insert(entries.len() / SEGMENTS_PER_NOTE);
            entries.push(entry);
        }
    }

    /// What is published of each rendition, in the plan's order.
    pub fn tracks(&self) -> &[Vec<Entry>] {
        &self.tracks
    }

    /// Writes what is not written yet, with the stills that have come since the last time.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn save(&mut self, stills: &[Bytes]) -> Result<(), StoreError> {
        if !stills.is_empty() {
            let path = stills_path(&self.folder, self.stills);
            self.store.put(&path, CachePolicy::Stable("image/jpeg"), stills.concat().into()).await?;
            self.stills += stills.len();
        }
        while let Some(number) = self.changed.first().copied() {
            let first = number * SEGMENTS_PER_NOTE;
            let rows = |entries: &Vec<Entry>| {
                entries.iter().skip(first).take(SEGMENTS_PER_NOTE).map(SegmentRow::from).collect()
            };
            let note = Note { schema: SCHEMA, tracks: self.tracks.iter().map(rows).collect() };
            // Plain numbers and texts can always be written.
            if let Ok(bytes) = note.write() {
                self.store.put(&note_path(&self.folder, number), CachePolicy::Stable(JSON), bytes).await?;
            }
            self.changed.remove(&number);
        }
        Ok(())
    }
}

/// Removes everything: the stream in this folder is complete.
///
/// # Errors
/// Trouble with the store.
pub async fn remove(store: &Store, folder: &str) -> Result<(), StoreError> {
    let tags = store.tags(&format!("{folder}/checkpoint")).await?;
    let mut paths: Vec<&String> = tags.keys().collect();
    // The first note last: without it there is nothing to go on from.
    paths.sort_unstable_by(|one, other| other.cmp(one));
    stream::iter(paths).map(|path| store.delete(path)).buffered(AT_ONCE).try_collect().await
}

fn note_path(folder: &str, number: usize) -> String {
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

    use super::*;

    const FOLDER: &str = "job/plan";
    const MEDIA: CachePolicy = CachePolicy::Immutable("video/mp4");

    struct Stream {
        folder: TempDir,
        store: Store,
        checkpoint: Checkpoint,
    }

    fn tracks() -> Vec<String> {
        ["video/240p", "audio/und"].map(|track| format!("{FOLDER}/{track}")).into()
    }

    impl Stream {
        /// A rung and its sound, of which so many segments each are published and noted.
        async fn of(segments: [usize; 2]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::Folder(folder.path().to_owned());
            let mut checkpoint = Checkpoint::new(store.clone(), FOLDER.into(), 2);
            let init = crate::process::command("ffmpeg")
                .args("-loglevel error -f lavfi -i color=size=64x36:duration=1 -c:v libx264".split(' '))
                .args("-frames:v 1 -movflags +empty_moov -f mp4 pipe:1".split(' '))
                .output()
                .await
                .unwrap()
                .stdout;
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

        async fn left(&self) -> PriorOutput {
            PriorOutput::find(&self.store, FOLDER, &tracks(), 1, Stills::every(1.0)).await.unwrap()
        }

        async fn recovered(&self) -> Option<Recovered> {
            match self.left().await {
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
        let path = format!("{track}/{}", presentation::segment_name(number));
        let tag = store.put(&path, MEDIA, content.into()).await.unwrap();
        let published = Published { start_ticks, duration_ticks: 100, samples: 4, bytes: 20, key_bytes: 10 };
        Entry { interval: number as i64, published, starts_with_keyframe: true, tag }
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
    async fn what_was_noted_is_found_again() {
        let mut stream = Stream::of([150, 140]).await;
        stream.checkpoint.save(&[still(2)]).await.unwrap();
        let recovered = stream.recovered().await.unwrap();
        assert_eq!(recovered.stills, stills(&[0, 1, 2]));
        assert_eq!(recovered.tracks[0].init.codecs.get(..5), Some("avc1."));
        for (track, noted) in recovered.tracks.iter().zip(&stream.checkpoint.tracks) {
            assert_eq!(&track.entries, noted);
        }
    }

    #[tokio::test]
    async fn nothing_is_found_where_nothing_was_noted() {
        let stream = Stream::of([3, 3]).await;
        let of_another_plan = ["job/other/video/240p".to_owned()];
        let of_another_plan =
            PriorOutput::find(&stream.store, "job/other", &of_another_plan, 1, Stills::every(1.0))
                .await
                .unwrap();
        assert_eq!(of_another_plan, PriorOutput::Nothing);
        remove(&stream.store, FOLDER).await.unwrap();
        assert_eq!(stream.left().await, PriorOutput::Nothing);
        let playlist = format!("{FOLDER}/audio/und/index.m3u8");
        stream.store.put(&playlist, CachePolicy::GrowingPlaylist, Bytes::new()).await.unwrap();
        assert_eq!(stream.left().await, PriorOutput::Playlists);
        assert!(stream.path("video/240p/seg-00002.m4s").exists());
    }

    #[tokio::test]
    async fn a_segment_that_is_not_as_it_was_published_ends_what_is_kept() {
        let stream = Stream::of([6, 6]).await;
        std::fs::write(stream.path("video/240p/seg-00004.m4s"), "corrupt").unwrap();
        assert_eq!(stream.lengths().await, Some([4, 6]));
        std::fs::remove_file(stream.path("audio/und/seg-00002.m4s")).unwrap();
        assert_eq!(stream.lengths().await, Some([4, 2]));
        std::fs::write(stream.path("video/240p/init.mp4"), "corrupt").unwrap();
        assert_eq!(stream.lengths().await, None);
    }

    #[tokio::test]
    async fn a_note_that_somebody_edited_is_none() {
        let stream = Stream::of([70, 70]).await;
        let path = stream.path("checkpoint/00001.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("100", "101", 1)).unwrap();
        assert_eq!(stream.lengths().await, Some([64, 64]));
        std::fs::write(stream.path("checkpoint/00000.json"), "{}").unwrap();
        assert_eq!(stream.lengths().await, None);
    }

    #[tokio::test]
    async fn sound_of_two_attempts_that_does_not_fit_is_not_joined() {
        let mut stream = Stream::of([66, 66]).await;
        let mut recovered = stream.recovered().await.unwrap();
        recovered.tracks[1].entries.truncate(63);
        stream.checkpoint.resume(&recovered);
        // The next attempt cuts a fragment earlier, and gets as far as to the end of the first note.
        let track = &tracks()[1];
        let mut entry = put(&stream.store, track, 63, 6300).await;
        entry.published.duration_ticks = 90;
        stream.checkpoint.add(1, entry);
        stream.checkpoint.save(&[]).await.unwrap();
        assert_eq!(stream.lengths().await, Some([66, 64]));
    }

    #[tokio::test]
    async fn stills_are_kept_up_to_the_first_that_is_missing() {
        let mut stream = Stream::of([1, 1]).await;
        for number in [2, 3] {
            stream.checkpoint.save(&[still(number)]).await.unwrap();
        }
        std::fs::remove_file(stream.path("checkpoint/stills-00002.mjpeg")).unwrap();
        assert_eq!(stream.recovered().await.unwrap().stills, stills(&[0, 1]));
        std::fs::write(stream.path("checkpoint/stills-00000.mjpeg"), &still(0)[..4]).unwrap();
        assert_eq!(stream.recovered().await.unwrap().stills.taken(), 0);
    }
}

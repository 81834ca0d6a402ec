//! Languages of the tracks of a Matroska or WebM file. FFmpeg does not read the element with the RFC 5646
//! tag.

use crate::{source::loopback::Input, store::S3Error};

use super::{
    ebml::{Header, elements, id, segment},
    language_code::canonical,
    limits::MOST_INDEXED_TRACKS,
    media::Media,
};

/// Bytes of the first read. They hold all headers of most files.
const FIRST_READ: u64 = 64 << 10;
/// Most elements before the tracks; files have about eight before the first cluster.
const MOST_ELEMENTS: usize = 64;
/// Largest element with the tracks. Subtitle tracks may contain style sheets, and tracks parameter sets.
const LARGEST_TRACKS: u64 = 4 << 20;

/// The RFC 5646 tag of each of FFmpeg's streams, if it has one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TrackLanguages(Vec<Option<String>>);

impl TrackLanguages {
    /// Reads the languages; empty for a file in another format.
    ///
    /// # Errors
    /// S3 fails.
    pub(crate) async fn read(input: &Input) -> Result<Self, S3Error> {
        Ok(tracks(input).await?.map_or_else(Self::default, |tracks| Self::parse(&tracks)))
    }

    /// Parses the content of a `Tracks` element.
    fn parse(tracks: &[u8]) -> Self {
        let language = |entry: &[u8]| {
            let value = |wanted: u32| elements(entry).find(|(id, _)| *id == wanted).map(|(_, value)| value);
            // FFmpeg makes streams of video, audio, subtitles and metadata that have a codec.
            let is_stream =
                value(id::CODEC_ID).is_some() && matches!(value(id::TRACK_TYPE), Some([1 | 2 | 0x11 | 0x21]));
            let tag = || {
                std::str::from_utf8(value(id::LANGUAGE_BCP47)?)
                    .ok()
                    .and_then(|tag| canonical(tag.trim_end_matches('\0')))
            };
            is_stream.then(tag)
        };
        let entries = elements(tracks).filter(|(id, _)| *id == id::TRACK_ENTRY).take(MOST_INDEXED_TRACKS);
        Self(entries.filter_map(|(_, entry)| language(entry)).collect())
    }

    /// Replaces the three-letter codes that ffprobe prints.
    pub(crate) fn describe(&self, media: &mut Media) {
        let audio = media.audio.iter_mut().map(|audio| (audio.index, &mut audio.language));
        let subtitles = media.subtitles.iter_mut().map(|subtitle| (subtitle.index, &mut subtitle.language));
        for (index, language) in audio.chain(subtitles) {
            if let Some(Some(tag)) = self.0.get(index) {
                *language = Some(tag.clone());
            }
        }
    }
}

/// The content of the `Tracks` element before the first cluster.
async fn tracks(input: &Input) -> Result<Option<Vec<u8>>, S3Error> {
    let Some(head) = input.bytes(0, FIRST_READ).await? else { return Ok(None) };
    let Some((mut at, _)) = segment(&head) else { return Ok(None) };
    // These bytes of the file, from the first read if it has them.
    let read = async |from: u64, length: u64| {
        let range = usize::try_from(from).ok().zip(usize::try_from(from.saturating_add(length)).ok());
        match range.and_then(|(from, to)| head.get(from..to)) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Ok(input.bytes(from, from.saturating_add(length)).await?.unwrap_or_default().to_vec()),
        }
    };
    for _ in 0..MOST_ELEMENTS {
        let bytes = read(at, Header::LONGEST as u64).await?;
        let Some(header) = Header::parse(&bytes) else { return Ok(None) };
        let content = at.saturating_add(header.length as u64);
        match (header.id, header.size) {
            (id::CLUSTER, _) | (_, None) => return Ok(None),
            (id::TRACKS, Some(size)) if size > LARGEST_TRACKS => return Ok(None),
            (id::TRACKS, Some(size)) => return read(content, size).await.map(Some),
            (_, Some(size)) => at = content.saturating_add(size),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        analysis::media::{Audio, Subtitle},
        fixtures::clip,
    };

    #[tokio::test]
    async fn tags_replace_codes() {
        let folder = tempfile::tempdir().unwrap();
        let tone = "-f lavfi -i sine=duration=1";
        let srt = folder.path().join("a.srt");
        std::fs::write(&srt, "1\n00:00:00,100 --> 00:00:00,900\nHello\n").unwrap();
        let file = clip(
            &folder,
            "clip.mkv",
            &format!(
                "{tone} {tone} -i {} -map 0 -map 1 -map 2 -metadata:s:a:0 language=pt-BR -metadata:s:a:1 language=eng \
                 -metadata:s:s:0 language=zh-Hans",
                srt.display()
            ),
        );
        let mut bytes = std::fs::read(&file).unwrap();
        // FFmpeg writes each language into the element for codes. The first and third become tags.
        let codes: Vec<usize> = memchr::memmem::find_iter(&bytes, b"\x22\xb5\x9c").collect();
        for at in [codes[0], codes[2]] {
            bytes[at + 2] = 0x9d;
        }
        std::fs::write(&file, &bytes).unwrap();
        let languages = TrackLanguages::read(&Input::File(file)).await.unwrap();
        let mut media = Media::default();
        for index in 0..2 {
            media.audio.push(Audio { index, language: Some("eng".into()), ..Audio::default() });
        }
        media.subtitles.push(Subtitle { index: 2, language: None, ..Subtitle::default() });
        languages.describe(&mut media);
        let found: Vec<_> = media.audio.iter().map(|audio| audio.language.as_deref()).collect();
        assert_eq!(found, [Some("pt-BR"), Some("eng")]);
        assert_eq!(media.subtitles[0].language.as_deref(), Some("zh-Hans"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted(tracks in prop::collection::vec(any::<u8>(), 0..100)) {
            TrackLanguages::parse(&tracks).describe(&mut Media::default());
        }
    }
}

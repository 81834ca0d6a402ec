use mp4_atom::{
    Avcc, Co64, Ctts, CttsEntry, Elst, ElstEntry, Encode, Mdhd, Mvhd, Stsc, StscEntry, Stss, Stsz,
    StszSamples, Stts, SttsEntry, Tkhd,
};

use super::*;

/// A sequence parameter set of the Main profile, without fields.
const PROGRESSIVE: [u8; 6] = [0x67, 77, 0, 31, 0xdd, 0xc0];

pub(super) fn wrap(kind: &[u8; 4], parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    let size = u32::try_from(body.len() + 8).unwrap();
    [&size.to_be_bytes()[..], kind, &body].concat()
}

fn encode(mp4_box: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    mp4_box.encode(&mut bytes).unwrap();
    bytes
}

/// A video track of 25 frames per second with 100 ticks per second, in a file of 1000 bytes.
#[derive(Debug, Clone)]
pub(super) struct TestTrack {
    /// Number of frames. Each frame has one byte.
    pub(super) frames: u32,
    /// Runs of frames: number of frames, and ticks per frame.
    pub(super) times: Vec<(u32, u32)>,
    /// Composition offsets in ticks.
    pub(super) offsets: Option<Vec<i64>>,
    /// Numbers of keyframes, from 1.
    pub(super) keyframes: Option<Vec<u32>>,
    /// Edits: duration in milliseconds, and start in ticks (`None` for a pause).
    pub(super) edits: Vec<(u64, Option<u64>)>,
    /// The position of the only chunk.
    pub(super) chunk: u64,
}

impl TestTrack {
    pub(super) fn new(frames: u32) -> Self {
        Self {
            frames,
            times: vec![(frames, 4)],
            offsets: None,
            keyframes: Some(vec![1]),
            edits: Vec::new(),
            chunk: 100,
        }
    }

    pub(super) fn trak(&self) -> Vec<u8> {
        let avcc = Avcc { ext: None, ..Avcc::new(&PROGRESSIVE, &[0x68]).unwrap() };
        let entry = wrap(b"avc1", &[vec![0; 78], encode(&avcc)]);
        let one = 1_u32.to_be_bytes().to_vec();
        let entries = self.times.iter().map(|(sample_count, sample_delta)| SttsEntry {
            sample_count: *sample_count,
            sample_delta: *sample_delta,
        });
        let stsc = StscEntry { first_chunk: 1, samples_per_chunk: self.frames, sample_description_index: 1 };
        let mut stbl = vec![
            wrap(b"stsd", &[vec![0; 4], one, entry]),
            encode(&Stts { entries: entries.collect() }),
            encode(&Stsc { entries: vec![stsc] }),
            encode(&Stsz { samples: StszSamples::Identical { count: self.frames, size: 1 } }),
            encode(&Co64 { entries: vec![self.chunk] }),
        ];
        if let Some(offsets) = &self.offsets {
            let entry = |offset: &i64| CttsEntry { sample_count: 1, sample_offset: *offset };
            stbl.push(encode(&Ctts { entries: offsets.iter().map(entry).collect() }));
        }
        if let Some(keyframes) = &self.keyframes {
            stbl.push(encode(&Stss { entries: keyframes.clone() }));
        }
        let edits = self.edits.iter().map(|(segment_duration, media_time)| ElstEntry {
            segment_duration: *segment_duration,
            media_time: *media_time,
            media_rate: 1.into(),
        });
        let hdlr = mp4_atom::Hdlr { handler: b"vide".into(), name: String::new() };
        let mdhd = Mdhd { timescale: 100, language: "und".into(), ..Default::default() };
        let minf = wrap(b"minf", &[wrap(b"stbl", &stbl)]);
        let trak = [
            encode(&Tkhd { track_id: 7, ..Default::default() }),
            wrap(b"edts", &[encode(&Elst { entries: edits.collect() })]),
            wrap(b"mdia", &[encode(&mdhd), encode(&hdlr), minf]),
        ];
        wrap(b"trak", &trak)
    }

    /// The body of a `moov` box with this track.
    pub(super) fn moov(&self) -> Vec<u8> {
        let mvhd = Mvhd { timescale: 1000, ..Default::default() };
        [encode(&mvhd), self.trak()].concat()
    }

    pub(super) fn video(&self) -> Result<CopyableVideo, String> {
        let index = Index::of_moov(&self.moov(), 1000).unwrap();
        let Content::Video(video) = index.track(7).unwrap().content.clone() else { panic!("{index:?}") };
        video.map_err(|why| why.to_string())
    }

    /// The time of each keyframe, the last time before it, and whether its GOP is closed.
    pub(super) fn times(&self) -> Vec<(i64, i64, bool)> {
        self.video().unwrap().keyframes.iter().map(|key| (key.at, key.before, key.closed)).collect()
    }
}

//! Bad files of the corpus.

use crate::{
    cases::{Case, Cases, Expected::*, MAX_SECONDS},
    common::corpus,
};

#[test]
fn bad_files_of_the_corpus() {
    let mut cases = Cases::new();
    for (name, expected) in [
        ("sample_malformed_free_box.mp4", Rejected("not a video")),
        ("bad_zero_empty_stsc.mp4", Rejected("damaged")),
        ("bad_broken.mp4", Rejected("not a video")),
        ("bad_invalid_userdata_truncated.mp4", Rejected("damaged")),
        ("enc_short-cenc.mp4", Rejected("encrypted")),
        ("unsupported_vvc_2s.mp4", Rejected("format (vvc1) that this service cannot read")),
        ("synth_truncated_mdat.mp4", Rejected("damaged: only")),
        ("synth_empty_file.mp4", Rejected("not a video")),
        ("synth_text_named_mp4.mp4", Rejected("not a")),
    ] {
        if let Some(file) = corpus(name) {
            // The rest of a truncated video is decoded before it is rejected as too short.
            let max_seconds = if name == "synth_truncated_mdat.mp4" { 60.0 } else { MAX_SECONDS };
            cases.all.push(Case { name: name.into(), file, expected, max_seconds });
        }
    }
    cases.run();
}

//! Uploads that both programs accept.

/// FFmpeg's demuxers that may open an upload, in the form of `-format_whitelist`: MP4 and QuickTime, Matroska
/// and WebM. The consumer rejects other file types before it starts a task.
pub const DEMUXERS: &str = "mov,matroska";

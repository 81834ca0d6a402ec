//! HTTP headers of published objects.

/// Media type of HLS playlists (RFC 8216, section 4).
pub(crate) const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Media type of reports and checkpoints.
pub(crate) const JSON: &str = "application/json";

/// The kind of an object, which decides its `Content-Type` and `Cache-Control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CachePolicy {
    /// A master or media playlist that will change.
    GrowingPlaylist,
    /// A media playlist that is final.
    FinalPlaylist,
    /// An object that may be overwritten. Holds the media type.
    Replaceable(&'static str),
    /// An object that never changes. Holds the media type.
    Immutable(&'static str),
}

impl CachePolicy {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::GrowingPlaylist | Self::FinalPlaylist => PLAYLIST,
            Self::Replaceable(content_type) | Self::Immutable(content_type) => content_type,
        }
    }

    pub(super) const fn cache_control(self) -> &'static str {
        match self {
            Self::GrowingPlaylist => "public, max-age=1",
            // A cache may hold a growing version for one second; then it fetches the final one and keeps it.
            Self::FinalPlaylist | Self::Immutable(_) => "public, max-age=31536000, immutable",
            Self::Replaceable(_) => "public, max-age=10",
        }
    }
}

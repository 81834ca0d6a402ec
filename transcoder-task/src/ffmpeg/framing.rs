//! Filters that fit frames of any size and shape into one frame size, and turn them for display.
//!
//! A recording may change its size and shape at any frame: a phone is turned, a call gets more bandwidth.
//! FFmpeg would rebuild the whole filter graph then, and filters would lose their state. The task forbids
//! this (`-reinit_filter 0`), so the first filter of a graph that depends on the frame's size or pixel format
//! must be `scale`, which adapts itself to each frame. All later filters get frames of one size and format.

use crate::{
    analysis::orientation::Orientation,
    plan::model::{FrameShape, Picture},
};

/// Frames whose shape differs by less than this share from that of the largest frames fill the whole picture.
/// Sizes are rounded to multiples of 2, 8 or 16 pixels, and bars of a few pixels would be ugly: 424×240 is
/// 16:9, too.
const SAME_SHAPE: f64 = 0.01;

/// A frame size to fit the source's frames into, before the turn for display.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Framing {
    width: u32,
    height: u32,
    /// Pixel aspect ratio of this frame size, width to height.
    pixel_aspect: f64,
    /// Shape of the frames that fill the frame size: width to height.
    aspect: f64,
    orientation: Orientation,
}

impl Framing {
    /// Fits frames of this shape into this size for display, which is in square pixels.
    pub(super) fn new(shape: &FrameShape, width: u32, height: u32) -> Self {
        let turned = shape.orientation.swaps_sides();
        let (width, height) = if turned { (height, width) } else { (width, height) };
        Self { width, height, pixel_aspect: 1.0, aspect: shape.aspect(), orientation: shape.orientation }
    }

    /// The filter `scale` without further options: scales each frame into the frame size and keeps its shape.
    pub(super) fn scale(&self, flags: &str) -> String {
        let Self { width, height, pixel_aspect, aspect, .. } = *self;
        let same = format!("lt(abs(dar/{aspect:.6}-1),{SAME_SHAPE})");
        let fitted =
            |full: u32, other: &str| format!("if({same},{full},max(2,2*round(min({full},{other})/2)))");
        let fitted_width = fitted(width, &format!("{}*dar", f64::from(height) / pixel_aspect));
        let fitted_height = fitted(height, &format!("{}/dar", f64::from(width) * pixel_aspect));
        format!("scale=w='{fitted_width}':h='{fitted_height}':eval=frame:flags={flags}")
    }

    /// The filter that adds black bars around frames of another shape. Frames that fill the frame size are
    /// unchanged.
    pub(super) fn bars(&self) -> String {
        format!("pad={}:{}:-1:-1:eval=frame", self.width, self.height)
    }

    /// The filters that turn the picture for display and make its pixels square.
    pub(super) fn turn(&self) -> String {
        let Orientation { mirrored, quarter_turns } = self.orientation;
        let turn = match (mirrored, quarter_turns) {
            (false, 1) => "transpose=clock,",
            (false, 2) => "hflip,vflip,",
            (false, 3) => "transpose=cclock,",
            (true, 0) => "hflip,",
            (true, 1) => "transpose=clock_flip,",
            (true, 2) => "vflip,",
            (true, 3) => "transpose=cclock_flip,",
            _ => "",
        };
        format!("{turn}setsar=1")
    }
}

/// The filters that give all frames the size and shape of the source's largest frames and one pixel format,
/// for filters that need this and must run before the colour conversion. Such frames are unchanged. Others
/// are scaled, as fields or as whole frames by their flags, and get bars. Without `format`, the pixel format
/// is that of the first frame.
fn uniform(shape: &FrameShape, format: Option<&str>, flags: &str) -> String {
    let FrameShape { size: (width, height), pixel_aspect, orientation } = *shape;
    let framing = Framing { width, height, pixel_aspect, aspect: shape.aspect(), orientation };
    let format = format.map_or_else(String::new, |format| format!("format={format},"));
    format!("{}:interl=-1,{format}{},setsar={pixel_aspect:.6}", framing.scale(flags), framing.bars())
}

/// The filters that must run before the colour conversion, if there are any: `deinterlacer`, and those that
/// put transparent frames over black. The alpha channel is taken for straight, as its coding is nowhere
/// stated.
pub(super) fn preparation(picture: &Picture, deinterlacer: &str, flags: &str) -> Option<String> {
    let over_black = picture.alpha.map(|_| "premultiply=inplace=1");
    let deinterlacer = picture.deinterlace.then_some(deinterlacer);
    let filters: Vec<_> = over_black.into_iter().chain(deinterlacer).collect();
    let uniform = || uniform(&picture.shape, picture.alpha, flags);
    (!filters.is_empty()).then(|| format!("{},{}", uniform(), filters.join(",")))
}

#[cfg(test)]
mod tests;

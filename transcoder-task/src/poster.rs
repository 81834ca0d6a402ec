//! Chooses the poster from a few stills of the video's beginning.

use bytes::Bytes;

/// Start of image, and the first byte of the marker behind it. It does not occur inside: in a JPEG's data every
/// 0xFF is followed by a zero.
const START: [u8; 3] = [0xff, 0xd8, 0xff];

/// The still with the most to see in it. `stills` are JPEGs of one size and quality, one behind the other, so
/// the largest has the most detail: black, blank and blurred frames are small. `None` if there is none.
pub fn choose(stills: &Bytes) -> Option<Bytes> {
    let starts = (0..stills.len()).filter(|at| stills[*at..].starts_with(&START)).collect::<Vec<_>>();
    let ends = starts.iter().copied().skip(1).chain([stills.len()]).collect::<Vec<_>>();
    // Reversed, because of several that are as large the last one is taken.
    let largest = starts.iter().zip(ends).rev().max_by_key(|(start, end)| end - *start);
    largest.map(|(start, end)| stills.slice(*start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_stills() {
        let still = |content: &[u8]| [&START, content].concat();
        let stills = [still(b"dull"), still(b"detailed"), still(b"as large"), still(b"")];
        assert_eq!(choose(&stills.concat().into()), Some(stills[1].clone().into()));
        assert_eq!(choose(&Bytes::new()), None);
        assert_eq!(choose(&Bytes::from_static(b"no picture")), None);
    }
}

//! The orientation of a picture, from its container's display matrix.

/// An orientation for display: mirrored first (left and right are swapped), then turned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orientation {
    pub(crate) mirrored: bool,
    /// Clockwise quarter turns: 0 to 3.
    pub(crate) quarter_turns: u8,
}

impl Orientation {
    /// The orientation that is nearest to a matrix, whatever its scale and shear. A turn that lies in the
    /// middle between two is the smaller one. Browsers and players show only such turns, too.
    fn nearest(matrix: [f64; 4]) -> Self {
        // A point (x, y), with y downwards, is shown at (a x + c y, b x + d y).
        let [a, b, c, d] = matrix;
        let mirrored = a * d - b * c < 0.0;
        // Mirroring negates x, so it negates the first column.
        let (a, b) = if mirrored { (-a, -b) } else { (a, b) };
        let turns = (b - c).atan2(a + d) / std::f64::consts::FRAC_PI_2;
        /// A margin for the rounding of 45 degrees in the file.
        const MIDDLE: f64 = 0.5 + 1e-3;
        let turns = (turns.abs() - MIDDLE).ceil().copysign(turns) as i8;
        Self { mirrored, quarter_turns: turns.rem_euclid(4) as u8 }
    }

    /// True if width and height are swapped for display.
    #[must_use]
    pub(crate) fn swaps_sides(self) -> bool {
        self.quarter_turns % 2 == 1
    }

    /// Clockwise degrees for display: 0, 90, 180 or 270.
    #[must_use]
    pub(crate) fn degrees(self) -> u32 {
        u32::from(self.quarter_turns) * 90
    }
}

/// The display matrix of a track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DisplayMatrix([f64; 4]);

impl DisplayMatrix {
    /// Parses ffprobe's text: three lines, each with an offset and three numbers. Returns `None` for a matrix
    /// that shows nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rows: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .flat_map(|(_, row)| row.split_whitespace())
            .map_while(|cell| cell.parse().ok())
            .collect();
        let [a, b, _, c, d, ..] = rows[..] else { return None };
        (a * d - b * c != 0.0).then_some(Self([a, b, c, d]))
    }

    pub(super) fn orientation(self) -> Orientation {
        Orientation::nearest(self.0)
    }

    /// True if the matrix changes nothing. (A mere shift has no effect on a track that is shown alone.)
    pub(super) fn is_identity(self) -> bool {
        const ONE: f64 = 65_536.0;
        self.0 == [ONE, 0.0, 0.0, ONE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ffprobe's text for a matrix of real numbers.
    fn text(cells: [f64; 4]) -> String {
        let [a, b, c, d] = cells.map(|value| (value * 65_536.0).round() as i64);
        format!("\n00000000: {a:>12} {b:>12} 0\n00000001: {c:>12} {d:>12} 0\n00000002: 0 0 1073741824\n")
    }

    fn orientation(cells: [f64; 4]) -> (bool, u8) {
        let orientation = DisplayMatrix::parse(&text(cells)).unwrap().orientation();
        (orientation.mirrored, orientation.quarter_turns)
    }

    fn rotated(degrees: f64) -> [f64; 4] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        [cos, sin, -sin, cos]
    }

    fn mirrored(degrees: f64) -> [f64; 4] {
        let [a, b, c, d] = rotated(degrees);
        [-a, -b, c, d]
    }

    #[test]
    fn turns_are_rounded_to_quarters_with_and_without_mirroring() {
        for (degrees, turns) in [
            (0.0, 0),
            (90.0, 1),
            (180.0, 2),
            (270.0, 3),
            (-180.0, 2),
            (89.7, 1),
            (44.0, 0),
            (45.0, 0),
            (-45.0, 0),
            (46.0, 1),
            (135.0, 1),
            (-136.0, 2),
        ] {
            assert_eq!(orientation(rotated(degrees)), (false, turns), "{degrees}");
            assert_eq!(orientation(mirrored(degrees)), (true, turns), "{degrees}");
        }
    }

    #[test]
    fn scale_and_shear_do_not_matter() {
        assert_eq!(orientation([2.0, 0.0, 0.0, 0.5]), (false, 0));
        assert_eq!(orientation([0.0, 3.0, -1.0, 0.0]), (false, 1));
        assert_eq!(orientation([1.0, 0.3, 0.2, 1.0]), (false, 0));
        assert_eq!(orientation([-1.0, 0.0, 0.4, 1.0]), (true, 0));
        // Flipped upside down: mirrored and turned by 180 degrees.
        assert_eq!(orientation([1.0, 0.0, 0.0, -1.0]), (true, 2));
    }

    #[test]
    fn only_the_identity_changes_nothing() {
        let is_identity = |cells| DisplayMatrix::parse(&text(cells)).unwrap().is_identity();
        assert!(is_identity([1.0, 0.0, 0.0, 1.0]));
        for other in [rotated(45.0), mirrored(0.0), [2.0, 0.0, 0.0, 2.0], [1.0, 0.1, 0.0, 1.0]] {
            assert!(!is_identity(other));
        }
        for nothing in [text([0.0; 4]), text([1.0, 1.0, 1.0, 1.0]), "nonsense".into()] {
            assert_eq!(DisplayMatrix::parse(&nothing), None);
        }
    }
}

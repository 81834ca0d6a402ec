//! Primaries of colour spaces, and the matrices between them.

pub(super) type Rgb = [f64; 3];
pub(super) type Matrix3 = [[f64; 3]; 3];

/// Chromaticities (x, y) of red, green and blue. White is D65 in all of them.
pub(super) const BT709: [[f64; 2]; 3] = [[0.640, 0.330], [0.300, 0.600], [0.150, 0.060]];
pub(super) const BT2020: [[f64; 2]; 3] = [[0.708, 0.292], [0.170, 0.797], [0.131, 0.046]];
pub(super) const P3: [[f64; 2]; 3] = [[0.680, 0.320], [0.265, 0.690], [0.150, 0.060]];
const D65: [f64; 2] = [0.3127, 0.3290];

/// Linear RGB to XYZ, with white at (1, 1, 1): SMPTE RP 177.
pub(super) fn to_xyz(primaries: [[f64; 2]; 3]) -> Matrix3 {
    let xyz = |[x, y]: [f64; 2]| [x / y, 1.0, (1.0 - x - y) / y];
    let [red, green, blue] = primaries.map(xyz);
    let columns = transposed([red, green, blue]);
    let parts = apply(inverse(columns), xyz(D65));
    columns.map(|row| [row[0] * parts[0], row[1] * parts[1], row[2] * parts[2]])
}

pub(super) fn apply(matrix: Matrix3, vector: Rgb) -> Rgb {
    matrix.map(|row| row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2])
}

pub(super) fn scaled(matrix: Matrix3, factor: f64) -> Matrix3 {
    matrix.map(|row| row.map(|entry| entry * factor))
}

fn transposed([a, b, c]: Matrix3) -> Matrix3 {
    [[a[0], b[0], c[0]], [a[1], b[1], c[1]], [a[2], b[2], c[2]]]
}

/// The matrix product, which applies `right` first.
pub(super) fn product(left: Matrix3, right: Matrix3) -> Matrix3 {
    transposed(transposed(right).map(|column| apply(left, column)))
}

/// The inverse of a regular matrix.
pub(super) fn inverse([a, b, c]: Matrix3) -> Matrix3 {
    let cross =
        |u: Rgb, v: Rgb| [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    let (bc, ca, ab) = (cross(b, c), cross(c, a), cross(a, b));
    let determinant = a[0] * bc[0] + a[1] * bc[1] + a[2] * bc[2];
    scaled(transposed([bc, ca, ab]), 1.0 / determinant)
}

//! Finds boxes in the body of another box. `mp4-atom` decodes single boxes.

use mp4_atom::{Atom, DecodeMaybe, Header};

use super::not_copyable::{NotCopyable, why};

/// Iterates over the boxes in a body, up to the first incomplete one.
pub(super) fn boxes(mut body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let header = Header::decode_maybe(&mut body).ok()??;
        let (content, rest) = body.split_at_checked(header.size.unwrap_or(body.len()))?;
        body = rest;
        Some((header.kind.into(), content))
    })
}

/// The body of the box of a type, if there is one.
///
/// # Errors
/// There are several.
pub(super) fn only<'a>(body: &'a [u8], kind: &[u8; 4]) -> Result<Option<&'a [u8]>, NotCopyable> {
    let mut same = boxes(body).filter(|(other, _)| other == kind).map(|(_, content)| content);
    match (same.next(), same.next()) {
        (found, None) => Ok(found),
        _ => why(format!("it has several {} boxes", kind.escape_ascii())),
    }
}

pub(super) fn required<'a>(body: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8], NotCopyable> {
    only(body, kind)?.ok_or_else(|| NotCopyable(format!("it has no {} box", kind.escape_ascii()).into()))
}

pub(super) fn decode<T: Atom>(mut body: &[u8]) -> Result<T, NotCopyable> {
    T::decode_body(&mut body)
        .map_err(|error| NotCopyable(format!("its {} box is malformed: {error}", T::KIND).into()))
}

pub(super) fn optional<T: Atom>(body: &[u8], kind: &[u8; 4]) -> Result<Option<T>, NotCopyable> {
    only(body, kind)?.map(decode).transpose()
}

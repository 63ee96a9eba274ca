//! The fields that frames, the handshake and group requests share, and their bytes. Pure: bytes in, values out.
//!
//! Numbers are big-endian. A text follows its length: one byte in frames and in the handshake, two in group requests.

use bytes::{Buf as _, BufMut as _, BytesMut, TryGetError};

use tidegate_core::id::{CONNECTION_ID_BYTES, ConnectionId};
use tidegate_core::stage_names::StageNames;
use tidegate_core::topic::{TopicKind, TopicName};
use tidegate_core::trace_context::{TRACE_PLACE_BYTES, TraceContext};

/// An error: a field is cut short or has an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedField;

pub(super) type Decoded<T> = Result<T, MalformedField>;

impl From<TryGetError> for MalformedField {
    fn from(_: TryGetError) -> Self {
        MalformedField
    }
}

/// Returns `decoded`, if nothing of the bytes is left behind it.
pub(super) fn end<T>(rest: &[u8], decoded: T) -> Decoded<T> {
    if rest.is_empty() { Ok(decoded) } else { Err(MalformedField) }
}

/// Splits off `length` bytes.
pub(super) fn split<'a>(rest: &mut &'a [u8], length: usize) -> Decoded<&'a [u8]> {
    let (bytes, behind) = rest.split_at_checked(length).ok_or(MalformedField)?;
    *rest = behind;
    Ok(bytes)
}

/// Appends the length of `text` in one byte and `text`; bytes beyond the 255th are cut off.
pub(super) fn put_short_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(u8::MAX.into())];
    // After the cut above the length fits.
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

/// Decodes a text of at most 255 bytes.
pub(super) fn short_text<'a>(rest: &mut &'a [u8]) -> Decoded<&'a str> {
    let length = usize::from(rest.try_get_u8()?);
    std::str::from_utf8(split(rest, length)?).map_err(|_| MalformedField)
}

/// Appends the length of `text` in two bytes and `text`; bytes beyond the 65 535th are cut off. Ids, names and reasons
/// are all far shorter.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(u16::MAX.into())];
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

/// Decodes a text of at most 65 535 bytes.
pub(super) fn text<'a>(rest: &mut &'a [u8]) -> Decoded<&'a str> {
    let length = usize::from(rest.try_get_u16()?);
    std::str::from_utf8(split(rest, length)?).map_err(|_| MalformedField)
}

/// Decodes a connection id.
pub(super) fn id(rest: &mut &[u8]) -> Decoded<ConnectionId> {
    let mut id = [0; CONNECTION_ID_BYTES];
    rest.try_copy_to_slice(&mut id)?;
    Ok(ConnectionId::from_bytes(id))
}

/// Appends the number of `ids` in four bytes and the `ids`.
pub(super) fn put_ids<'a>(out: &mut BytesMut, ids: impl IntoIterator<Item = &'a ConnectionId>) {
    let at = out.len();
    out.put_u32(0);
    ids.into_iter().for_each(|id| out.put_slice(&id.to_bytes()));
    let count = (out.len() - at - size_of::<u32>()) / CONNECTION_ID_BYTES;
    out[at..at + size_of::<u32>()].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

/// Decodes a list of connection ids.
pub(super) fn ids<T: FromIterator<ConnectionId>>(rest: &mut &[u8]) -> Decoded<T> {
    let count = usize::try_from(rest.try_get_u32()?).map_err(|_| MalformedField)?;
    let ids = split(rest, count.checked_mul(CONNECTION_ID_BYTES).ok_or(MalformedField)?)?;
    Ok(ids.as_chunks::<CONNECTION_ID_BYTES>().0.iter().map(|id| ConnectionId::from_bytes(*id)).collect())
}

/// Appends a place in a trace, if there is one.
pub(super) fn put_trace(out: &mut BytesMut, trace: Option<TraceContext>) {
    trace.into_iter().for_each(|trace| out.put_slice(&trace.to_bytes()));
}

/// Decodes a place in a recorded trace: trace id and span id.
pub(super) fn trace(rest: &mut &[u8]) -> Decoded<TraceContext> {
    let mut place = [0; TRACE_PLACE_BYTES];
    rest.try_copy_to_slice(&mut place)?;
    TraceContext::from_bytes(place).ok_or(MalformedField)
}

/// Appends the length of the encoding of `stages` in two bytes and the encoding.
pub(super) fn put_stages<B: AsRef<[u8]>>(out: &mut BytesMut, stages: &StageNames<B>) {
    // The names of an API's stages are far shorter than this maximum.
    out.put_u16(u16::try_from(stages.bytes().len()).unwrap_or(u16::MAX));
    out.put_slice(stages.bytes());
}

/// Decodes a set of stage names. `hold` says how the set holds its encoding.
pub(super) fn stages<'a, B: AsRef<[u8]>>(
    rest: &mut &'a [u8],
    hold: impl FnOnce(&'a [u8]) -> B,
) -> Decoded<StageNames<B>> {
    let length = usize::from(rest.try_get_u16()?);
    StageNames::parse(hold(split(rest, length)?)).ok_or(MalformedField)
}

/// Appends the name of a group or a user.
pub(super) fn put_name(out: &mut BytesMut, name: &TopicName) {
    out.put_u8(match name.kind() {
        TopicKind::Group => 0,
        TopicKind::User => 1,
    });
    put_text(out, name.as_str());
}

/// Decodes the name of a group or a user.
pub(super) fn name(rest: &mut &[u8]) -> Decoded<TopicName> {
    let name = match rest.try_get_u8()? {
        0 => TopicName::group(text(rest)?),
        1 => TopicName::user(text(rest)?),
        _ => return Err(MalformedField),
    };
    name.map_err(|_| MalformedField)
}

/// Appends the number of `names` in four bytes and the `names`.
pub(super) fn put_names(out: &mut BytesMut, names: &[TopicName]) {
    // More names than that do not fit into a frame of the link.
    out.put_u32(u32::try_from(names.len()).unwrap_or(u32::MAX));
    names.iter().for_each(|name| put_name(out, name));
}

/// Decodes a list of names of groups and users.
pub(super) fn names(rest: &mut &[u8]) -> Decoded<Vec<TopicName>> {
    let count = rest.try_get_u32()?;
    (0..count).map(|_| name(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_characters() {
        let long = "ä".repeat(40_000);
        let (mut short, mut out) = (BytesMut::new(), BytesMut::new());
        put_short_text(&mut short, &long);
        put_text(&mut out, &long);
        assert_eq!(short_text(&mut &short[..]), Ok(&long[..254]));
        assert_eq!(text(&mut &out[..]), Ok(&long[..65_534]));
    }

    #[test]
    fn a_list_that_announces_more_than_there_is_is_refused() {
        assert_eq!(ids::<Vec<_>>(&mut &[0xff; 32][..]), Err(MalformedField));
        assert_eq!(names(&mut &[0xff; 32][..]), Err(MalformedField));
    }
}

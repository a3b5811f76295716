//! The gRPC status of gRPC-Web responses: in the last frame of the body, where gRPC has trailers
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).

use crate::host::StreamHost;

/// Bytes of a body's end that are kept: enough for a frame with status and message. In a longer frame the status is not
/// found.
const MAX_END: usize = 4096;
/// The flag of a frame that carries trailers.
const TRAILERS: u8 = 0x80;
/// How the media types of gRPC begin, how those of gRPC-Web go on, and then that for base64.
const GRPC: &[u8] = b"application/grpc";
const WEB: &[u8] = b"-web";
const TEXT: &[u8] = b"-text";
/// The length of a frame's head, bytes: a flag and the length of its content.
const HEAD: usize = 5;

/// The body of a response, if that is gRPC-Web.
#[derive(Debug, Default)]
pub(crate) struct WebBody(Option<Box<Kept>>);

/// The last bytes of a body so far.
#[derive(Debug)]
struct Kept {
    end: Vec<u8>,
    /// Whether the body is base64 (`application/grpc-web-text`).
    text: bool,
}

/// The rest of a media type behind `part`. Media types are the same in whichever case.
fn strip<'a>(kind: &'a [u8], part: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = kind.split_at_checked(part.len())?;
    head.eq_ignore_ascii_case(part).then_some(rest)
}

impl WebBody {
    /// Whether the response headers say that the response is gRPC, whose status comes at its end. If it is gRPC-Web, its
    /// body is kept from here on.
    pub fn is_grpc(&mut self, host: &dyn StreamHost) -> bool {
        if self.0.is_some() {
            return true;
        }
        let kind = host.response_header("content-type").unwrap_or_default();
        let Some(rest) = strip(&kind, GRPC) else { return false };
        if let Some(rest) = strip(rest, WEB) {
            self.0 = Some(Box::new(Kept { end: Vec::new(), text: strip(rest, TEXT).is_some() }));
        }
        true
    }

    /// A part of the body; the gRPC status in its last frame once it has ended, with its `last` part.
    #[inline(never)]
    pub fn part(&mut self, host: &dyn StreamHost, last: bool) -> Option<u32> {
        let kept = self.0.as_mut()?;
        kept.end.extend_from_slice(&host.response_body_end(MAX_END));
        kept.end.drain(..kept.end.len().saturating_sub(MAX_END));
        if last { self.end() } else { None }
    }

    /// The gRPC status in the last frame of the body, which has ended.
    pub fn end(&mut self) -> Option<u32> {
        let kept = self.0.take()?;
        if kept.text { status(&decoded(&kept.end)) } else { status(&kept.end) }
    }
}

/// The status in the trailer frame at the end of `body`.
fn status(body: &[u8]) -> Option<u32> {
    let frame = (0..body.len()).find_map(|at| {
        let (head, rest) = body.get(at..)?.split_at_checked(HEAD)?;
        let [flag, length @ ..] = <[u8; HEAD]>::try_from(head).ok()?;
        let ends = usize::try_from(u32::from_be_bytes(length)).is_ok_and(|length| length == rest.len());
        (ends && flag & TRAILERS != 0).then_some(rest)
    })?;
    let line = frame.split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(line.iter().position(|b| *b == b':')?)?;
        name.trim_ascii().eq_ignore_ascii_case(b"grpc-status").then(|| value.get(1..).unwrap_or_default())
    })?;
    crate::request::classify::number(line.trim_ascii())
}

/// The decoded groups of four at the end of `text`. Each frame may end with padding of its own.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.get(text.len() % 4..).unwrap_or_default().chunks_exact(4) {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        let word = group.iter().fold(0u32, |word, b| word << 6 | sextet(*b));
        bytes.extend(word.to_be_bytes().into_iter().skip(1).take(3usize.saturating_sub(padding)));
    }
    bytes
}

fn sextet(letter: u8) -> u32 {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => 0,
    };
    value.into()
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn frame(flag: u8, content: &[u8]) -> Vec<u8> {
        [&[flag], &(content.len() as u32).to_be_bytes()[..], content].concat()
    }

    #[test]
    fn finds_the_status_in_the_last_frame() {
        let message = frame(0, b"payload");
        for (trailers, found) in [
            (&b"grpc-status:14\r\ngrpc-message:gone\r\n"[..], Some(14)),
            (b"Grpc-Message: x\r\nGRPC-Status: 0\r\n", Some(0)),
            (b"grpc-message:grpc-status:14\r\n", None),
            (b"grpc-status:\r\n", None),
            (b"grpc-status:1400000000000\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status(&[message.clone(), frame(TRAILERS, trailers)].concat()), found, "{trailers:?}");
        }
        // A message that looks like trailers, and what is cut.
        assert_eq!(status(&frame(0, &frame(TRAILERS, b"grpc-status:14\r\n"))), Some(14));
        assert_eq!(status(&message), None);
        assert_eq!(status(&frame(TRAILERS, b"grpc-status:14\r\n")[..12]), None);
        assert_eq!(status(&[0xFF; 5]), None);
    }

    #[test]
    fn reads_frames_that_are_padded_each() {
        // "a", and a frame of trailers with status 14, encoded apart.
        let text = b"YQ==gAAAABBncnBjLXN0YXR1czoxNA0K";
        let bytes = decoded(text);
        assert_eq!(bytes.first(), Some(&b'a'));
        assert_eq!(status(&bytes), Some(14));
        assert_eq!(status(&decoded(&text[3..])), Some(14), "whatever of its beginning is missing");
        assert_eq!(decoded(b"==="), b"");
    }
}

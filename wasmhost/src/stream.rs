//! The host's state of one request: header maps, bodies, properties, and the guest's own response.

use crate::abi::{buffer, map};
use crate::headers::Headers;
use crate::property::Properties;

/// A response that the guest sent itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// HTTP status.
    pub status: u32,
    /// Headers besides `:status`.
    pub headers: Headers,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
    /// Response code details, as access logs show them.
    pub details: String,
    /// gRPC status; -1 if there is none.
    pub grpc_status: i32,
}

impl LocalResponse {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A header map that has arrived, and whether a callback may use it now.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) headers: Option<Headers>,
    pub(crate) open: bool,
    /// Whether the guest has added it itself. Envoy leaves such a map to it until the stream ends.
    added: bool,
}

impl Slot {
    pub(crate) fn arrive(&mut self, headers: Headers) {
        *self = Slot { headers: Some(headers), open: true, added: false };
    }
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) maps: [Slot; 4],
    /// Present only while a callback may see them, with the parts that the guest has held.
    pub(crate) bodies: [Option<Vec<u8>>; 2],
    pub(crate) properties: Properties,
    /// Properties that guests have set.
    pub(crate) state: Properties,
    pub(crate) local_response: Option<LocalResponse>,
    pub(crate) resumed: bool,
    pub(crate) reset: bool,
    /// Whether this is the access log phase, in which the maps can be read again.
    pub(crate) logging: bool,
    /// Whether the headers or part of a body that came last, of either direction, were the end. Trailers may be added then,
    /// while there is a body of theirs.
    pub(crate) ended: bool,
    /// The head of the guest's own response, sent in place of one that had begun; what the access log reads.
    pub(crate) sent: Option<Headers>,
}

impl Stream {
    pub(crate) fn readable(&self, kind: u32) -> Option<&Headers> {
        let slot = self.maps.get(kind as usize)?;
        if self.logging && kind == map::RESPONSE_HEADERS && self.sent.is_some() {
            return self.sent.as_ref();
        }
        let readable = if self.logging { kind != map::REQUEST_TRAILERS } else { slot.open || slot.added };
        slot.headers.as_ref().filter(|_| readable)
    }

    pub(crate) fn writable(&mut self, kind: u32) -> Option<&mut Headers> {
        let slot = self.maps.get_mut(kind as usize)?;
        let body = match kind {
            map::REQUEST_TRAILERS => self.bodies[buffer::REQUEST_BODY as usize].as_ref(),
            map::RESPONSE_TRAILERS => self.bodies[buffer::RESPONSE_BODY as usize].as_ref(),
            _ => None,
        };
        if self.ended && body.is_some() && slot.headers.is_none() {
            *slot = Slot { headers: Some(Headers::default()), open: false, added: true };
        }
        slot.headers.as_mut().filter(|_| slot.open || slot.added)
    }

    /// Resumes the stream. In either direction this takes the request's parts away from the guest: Envoy clears the
    /// pointers.
    pub(crate) fn resume(&mut self) {
        self.resumed = true;
        self.maps[map::REQUEST_HEADERS as usize].open = false;
        self.maps[map::REQUEST_TRAILERS as usize].open = false;
        self.bodies[buffer::REQUEST_BODY as usize] = None;
    }
}

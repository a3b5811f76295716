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
    /// Present only while a callback may see them.
    pub(crate) bodies: [Option<Vec<u8>>; 2],
    pub(crate) properties: Properties,
    pub(crate) local_response: Option<LocalResponse>,
    pub(crate) resumed: bool,
    pub(crate) reset: bool,
    /// Whether this is the access log phase, in which the maps can be read again but not written.
    pub(crate) logging: bool,
    /// The trailers that the guest may add, because the last part of a body is running.
    pub(crate) addable: Option<u32>,
}

impl Stream {
    pub(crate) fn readable(&self, kind: u32) -> Option<&Headers> {
        let slot = self.maps.get(kind as usize)?;
        let logged = self.logging && kind != map::REQUEST_TRAILERS;
        slot.headers.as_ref().filter(|_| slot.open || slot.added || logged)
    }

    pub(crate) fn writable(&mut self, kind: u32) -> Option<&mut Headers> {
        let slot = self.maps.get_mut(kind as usize)?;
        if self.addable == Some(kind) && slot.headers.is_none() {
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

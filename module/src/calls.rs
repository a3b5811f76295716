//! Outstanding calls of the workers: which worker sent which, and the bodies of the answers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use evenkeel::host::{Body, Bytes};

use crate::abi::ConfigHandle;

/// A call that has not been answered.
pub struct Outstanding {
    config: ConfigHandle,
    id: u64,
    /// Index of the worker that sent it.
    pub worker: usize,
    /// The token by which that worker knows it.
    pub token: u32,
}

#[derive(Default)]
struct Noted {
    outstanding: Vec<Outstanding>,
    last_token: u32,
}

/// Outstanding calls of all workers. Envoy numbers them per configuration.
#[derive(Default)]
pub struct Calls(Mutex<Noted>);

impl Calls {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call that was sent; returns the token for its worker.
    pub fn note(&self, config: ConfigHandle, id: u64, worker: usize) -> u32 {
        let mut noted = self.noted();
        noted.last_token = noted.last_token.wrapping_add(1);
        let token = noted.last_token;
        noted.outstanding.push(Outstanding { config, id, worker, token });
        token
    }

    /// Removes the call with this number, which was answered.
    pub fn take(&self, config: ConfigHandle, id: u64) -> Option<Outstanding> {
        let mut noted = self.noted();
        let at = noted.outstanding.iter().position(|call| call.config == config && call.id == id)?;
        Some(noted.outstanding.swap_remove(at))
    }

    /// Removes all calls of a configuration, which Envoy cancels.
    pub fn take_all(&self, config: ConfigHandle) -> Vec<Outstanding> {
        let mut noted = self.noted();
        let (lost, rest) =
            core::mem::take(&mut noted.outstanding).into_iter().partition(|c| c.config == config);
        noted.outstanding = rest;
        lost
    }
}

/// The end of a call that came while the workers were locked.
pub struct Kept {
    /// The call.
    pub call: Outstanding,
    /// The answer: HTTP status, `None` if the call failed, and the response body. `None` if the call ended with its
    /// configuration.
    pub answer: Option<(Option<u32>, Vec<u8>)>,
}

/// A body in chunks, with the headers of its answer.
pub struct Pieces<'a> {
    /// The chunks.
    pub body: &'a [&'a [u8]],
    /// Names and values.
    pub headers: &'a [(&'a [u8], &'a [u8])],
}

impl Body for Pieces<'_> {
    fn size(&self) -> usize {
        self.body.iter().map(|piece| piece.len()).sum()
    }

    fn part(&self, mut from: usize, most: usize) -> Vec<u8> {
        let mut part = Vec::with_capacity(most.min(self.size().saturating_sub(from)));
        for piece in self.body {
            let rest = piece.get(from..).unwrap_or_default();
            from = from.saturating_sub(piece.len());
            let wanted = (most - part.len()).min(rest.len());
            part.extend_from_slice(rest.get(..wanted).unwrap_or_default());
            if part.len() == most {
                break;
            }
        }
        part
    }

    fn header(&self, name: &str) -> Option<Bytes> {
        let header = self.headers.iter().find(|(of, _)| *of == name.as_bytes());
        header.map(|(_, value)| value.to_vec().into())
    }
}

//! Calls of the workers and their answers: which worker sent which, and the body as the engine reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use evenkeel::host::{Body, Bytes};

use crate::abi::ConfigHandle;

/// A call that has not been answered.
pub struct Outstanding {
    config: ConfigHandle,
    id: u64,
    /// Whose it is.
    pub worker: usize,
    /// By what it knows it.
    pub token: u32,
}

#[derive(Default)]
struct Noted {
    outstanding: Vec<Outstanding>,
    last_token: u32,
}

/// Calls of all workers: Envoy numbers them by configuration.
#[derive(Default)]
pub struct Calls(Mutex<Noted>);

impl Calls {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has been sent; the token that its worker is to know it by.
    pub fn note(&self, config: ConfigHandle, id: u64, worker: usize) -> u32 {
        let mut noted = self.noted();
        noted.last_token = noted.last_token.wrapping_add(1);
        let token = noted.last_token;
        noted.outstanding.push(Outstanding { config, id, worker, token });
        token
    }

    /// The call with this number, which has been answered.
    pub fn take(&self, config: ConfigHandle, id: u64) -> Option<Outstanding> {
        let mut noted = self.noted();
        let at = noted.outstanding.iter().position(|call| call.config == config && call.id == id)?;
        Some(noted.outstanding.swap_remove(at))
    }

    /// Those of a configuration that Envoy gives up.
    pub fn take_all(&self, config: ConfigHandle) -> Vec<Outstanding> {
        let mut noted = self.noted();
        let (lost, rest) =
            core::mem::take(&mut noted.outstanding).into_iter().partition(|c| c.config == config);
        noted.outstanding = rest;
        lost
    }
}

/// An answer that came while the workers were at work.
pub struct Kept {
    /// The call.
    pub call: Outstanding,
    /// The status, if it has one.
    pub status: Option<u32>,
    /// The body.
    pub body: Vec<u8>,
}

/// A body in pieces, and the headers of its answer.
pub struct Pieces<'a> {
    /// The body.
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

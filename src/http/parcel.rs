//! A response body that holds secrets and must be known to have left: one buffer, wiped when the last holder lets go
//! of it, and a confirmation that is told only when its bytes were flushed to the transport.
//!
//! hyper and h2 take the buffer from the body long before it is written; the moment that counts is the buffer's drop,
//! with as many bytes flushed since it was taken as it has. A buffer that is dropped otherwise (the client hung up,
//! the stream was reset, the connection ended) leaves the confirmation untold.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::carrier::{Confirm, Stay};
use crate::kernel::secret::Secret;

/// The body.
pub(super) struct Parcel {
    bytes: Option<Bytes>,
    stay: Option<Arc<Stay>>,
    taken_at: Arc<AtomicU64>,
    until: Option<Instant>,
}

/// The exchange's deadline passed before the first byte left.
#[derive(Debug, thiserror::Error)]
#[error("it is too late to answer")]
pub(super) struct Late;

/// The buffer that the parcel's bytes are a view of.
struct Cargo {
    bytes: Secret,
    taken_at: Arc<AtomicU64>,
    confirm: Option<Confirm>,
    stay: Option<Arc<Stay>>,
}

impl Parcel {
    /// A body of these bytes. Without a stay (a router that is called without a connection) it is confirmed when its
    /// bytes were taken and dropped.
    pub(super) fn new(bytes: Secret, stay: Option<Arc<Stay>>, confirm: Confirm) -> Self {
        let taken_at = Arc::new(AtomicU64::new(NOT_TAKEN));
        let cargo =
            Cargo { bytes, taken_at: Arc::clone(&taken_at), confirm: Some(confirm), stay: stay.clone() };
        Self { bytes: Some(Bytes::from_owner(cargo)), stay, taken_at, until: None }
    }

    /// A body whose bytes leave before that moment or not at all: a process that was held still must not hand out
    /// late what may have been closed meanwhile.
    pub(super) fn until(self, deadline: Instant) -> Self {
        Self { until: Some(deadline), ..self }
    }
}

impl Body for Parcel {
    type Data = Bytes;
    type Error = Late;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Late>>> {
        let bytes = self.bytes.take();
        if bytes.is_some() && self.until.is_some_and(|until| Instant::now() >= until) {
            return Poll::Ready(Some(Err(Late)));
        }
        if bytes.is_some() {
            let written = self.stay.as_ref().map_or(0, |stay| stay.carrier().written());
            self.taken_at.store(written, Ordering::Release);
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

impl AsRef<[u8]> for Cargo {
    fn as_ref(&self) -> &[u8] {
        self.bytes.expose()
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        let bytes = self.bytes.len() as u64;
        // Wiped before anybody is told that it left.
        drop(std::mem::replace(&mut self.bytes, Secret::new(Vec::new())));
        let taken_at = self.taken_at.load(Ordering::Acquire);
        let Some(confirm) = self.confirm.take().filter(|_| taken_at != NOT_TAKEN) else { return };
        match &self.stay {
            Some(stay) => stay.carrier().land(taken_at.saturating_add(bytes), confirm),
            None => confirm(),
        }
    }
}

const NOT_TAKEN: u64 = u64::MAX;

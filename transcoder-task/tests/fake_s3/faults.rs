//! Faults that a test plans: calls that fail, and bodies that end early.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{Call, Operation};

/// A fault that is injected into a call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// 500 InternalError.
    InternalError,
    /// 503 SlowDown.
    SlowDown,
    /// 403 AccessDenied.
    AccessDenied,
    /// The connection is reset: for a read in the middle of the body, for a write before its body is read.
    Reset,
    /// The connection is closed in the middle of the announced body.
    Truncated,
    /// Half of the body, with half of the length as `Content-Length`.
    Half,
    /// The right number of bytes, but from the object's beginning.
    WrongRange,
    /// A read stops after half of the body. A write has no effect and no response.
    Stall,
    /// The call takes effect, and the connection is closed without a response.
    NoResponse,
    /// The object is replaced before the response.
    Replaced(Bytes),
}

/// A fault for some calls of one operation.
#[derive(Debug, Clone)]
pub(crate) struct FaultPlan {
    operation: Operation,
    key: &'static str,
    first: usize,
    count: usize,
    fault: Fault,
    seen: usize,
}

/// Plans a fault for the first call of the operation whose key contains `key`.
pub(crate) fn fail(operation: Operation, key: &'static str, fault: Fault) -> FaultPlan {
    FaultPlan { operation, key, first: 0, count: 1, fault, seen: 0 }
}

impl FaultPlan {
    /// The first call that gets the fault, counted from 0.
    pub(crate) fn from(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// The number of consecutive calls that get the fault.
    pub(crate) fn times(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// Gives the fault to all calls from the first one on.
    pub(crate) fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Counts the call, and returns its fault, if it gets one.
    pub(super) fn fault(&mut self, call: &Call) -> Option<Fault> {
        if self.operation != call.operation || !call.key.contains(self.key) {
            return None;
        }
        let number = self.seen;
        self.seen += 1;
        (number >= self.first && number - self.first < self.count).then(|| self.fault.clone())
    }
}

/// The body of a response, and how it ends.
pub(super) struct Content {
    pub(super) bytes: Bytes,
    pub(super) end: End,
}

#[derive(Clone, Copy)]
pub(super) enum End {
    Complete,
    /// The connection is closed although more was announced.
    Breaks,
    /// No more bytes come as long as the client waits.
    Stalls,
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, end: End::Complete }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        match self.end {
            End::Complete => Poll::Ready(None),
            End::Breaks => Poll::Ready(Some(Err(io::Error::other("broken off")))),
            End::Stalls => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Complete) && self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Complete => SizeHint::with_exact(self.bytes.len() as u64),
            End::Breaks | End::Stalls => SizeHint::with_exact(2 * self.bytes.len() as u64 + 1),
        }
    }
}

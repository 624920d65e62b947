//! The stream under an HTTP connection: how long an answer may stand still in it, and how it is closed.

use std::{
    io::{self, ErrorKind},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{backlog::Backlog, connection_state::ConnectionState};

/// How long the rest of a request is still read, and thrown away, once its answer is written.
const LINGER: Duration = Duration::from_secs(10);

/// How often it is looked at whether a client takes its answer.
const STEP: Duration = Duration::from_secs(1);

/// How much of an answer a client has to take in each [`STEP`], in bytes, while the backlog is
/// full, or its connection is evicted.
const LEAST: usize = 256 * 1024;

/// A stream that fails when its client takes nothing of an answer for too long, and that is closed
/// only when the rest of an unread request has come: a client that still sends would be cut off by the
/// system before it had read its answer. An evicted connection waits for neither.
pub(super) struct Wire<S> {
    stream: S,
    connection: Arc<ConnectionState>,
    backlog: Backlog,
    /// How long an answer may stand still.
    patience: Duration,
    stall: Option<Stall>,
    linger: Option<Pin<Box<Sleep>>>,
}

/// An answer that was not taken at once.
struct Stall {
    /// When something of it was taken last.
    since: Instant,
    /// How much was taken since it was looked at, in bytes.
    taken: usize,
    next: Pin<Box<Sleep>>,
}

impl<S> Wire<S> {
    pub(super) fn new(
        stream: S,
        connection: Arc<ConnectionState>,
        backlog: Backlog,
        patience: Duration,
    ) -> Self {
        Self { stream, connection, backlog, patience, stall: None, linger: None }
    }

    /// Counts what a part of an answer has written; fails if its client takes too little.
    fn moved(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match (&written, &mut self.stall) {
            (Poll::Pending, _) => self.wait(cx),
            (Poll::Ready(Ok(bytes)), Some(stall)) => {
                stall.since = Instant::now();
                stall.taken += bytes;
                written
            }
            _ => written,
        }
    }

    /// Forgets an answer that is written to its end; fails if its client takes too little.
    fn ended(
        &mut self,
        written: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if written.is_pending() {
            return self.wait(cx);
        }
        self.stall = None;
        written
    }

    /// Waits for the client; fails if it takes too little, or nothing for too long.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let step = STEP.min(self.patience);
        let fresh = || Stall { since: Instant::now(), taken: 0, next: Box::pin(sleep(step)) };
        let stall = self.stall.get_or_insert_with(fresh);
        while stall.next.as_mut().poll(cx).is_ready() {
            let is_slow = mem::take(&mut stall.taken) < LEAST;
            let is_pressing = self.backlog.is_full() || self.connection.is_evicted();
            if stall.since.elapsed() >= self.patience || is_slow && is_pressing {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            stall.next.as_mut().reset(Instant::now() + step);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads to the end of what the client sends, for a while.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.linger();
        let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let mut bytes = [0; 4096];
            let mut rest = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut rest));
            if read.is_err() || rest.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.received();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.moved(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.ended(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.ended(shut, cx))?;
        }
        if self.connection.has_unread() && !self.connection.is_evicted() {
            ready!(self.poll_rest(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn wire(near: DuplexStream, backlog: &Backlog) -> Wire<DuplexStream> {
        Wire::new(near, Arc::default(), backlog.clone(), PATIENCE)
    }

    /// How long a write takes that is more than the other end takes, and how it fails.
    async fn stalled(backlog: &Backlog) -> (Duration, ErrorKind) {
        let (near, _far) = duplex(16);
        let mut wire = wire(near, backlog);
        let begun = Instant::now();
        let error = wire.write_all(&[0; 100]).await.unwrap_err();
        (begun.elapsed(), error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_stand_still_for_less_time_while_the_backlog_is_full() {
        let backlog = Backlog::default();
        let (stood, kind) = stalled(&backlog).await;
        assert_eq!((stood.as_secs(), kind), (30, ErrorKind::TimedOut));
        let _waiting = backlog.count(Bytes::from(vec![0; 65 * 1024 * 1024]));
        assert_eq!(stalled(&backlog).await.0.as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_slowly_is_written() {
        let (near, mut far) = duplex(16);
        let mut wire = wire(near, &Backlog::default());
        let read = async {
            for _ in 0..10 {
                sleep(PATIENCE - STEP).await;
                far.read_exact(&mut [0; 10]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(wire.write_all(&[0; 100]), read);
        written.unwrap();
    }

    /// How an answer of four parts is written of which the client takes one in almost a [`STEP`], while
    /// too much waits.
    async fn written_in_parts(part: usize) -> io::Result<()> {
        let backlog = Backlog::default();
        let _waiting = backlog.count(Bytes::from(vec![0; 65 * 1024 * 1024]));
        let (near, mut far) = duplex(part);
        let mut wire = wire(near, &backlog);
        let taken = async {
            let mut bytes = vec![0; part];
            loop {
                sleep(STEP - Duration::from_millis(1)).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
        };
        let answer = vec![0; 4 * part];
        tokio::select! {
            written = wire.write_all(&answer) => written,
            () = taken => unreachable!("it reads for ever"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_backlog_is_full_an_answer_is_not_kept_for_who_takes_it_drop_by_drop() {
        written_in_parts(LEAST).await.unwrap();
        assert_eq!(written_in_parts(LEAST - 1).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_request_is_waited_for_and_not_for_ever() {
        let (near, mut far) = duplex(16);
        let mut wire = wire(near, &Backlog::default());
        wire.connection.received();
        let begun = Instant::now();
        let (shut, ()) = tokio::join!(wire.shutdown(), async {
            far.write_all(&[0; 100]).await.unwrap();
        });
        shut.unwrap();
        assert_eq!(begun.elapsed(), LINGER);
    }
}

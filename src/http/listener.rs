//! The sockets that are listened on, and what they accept.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::net,
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket_file::SocketFile;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A unix socket, with its file if that is ours.
    Unix(UnixListener, Option<SocketFile>),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// A connection that is in no runtime.
#[derive(Debug)]
pub(super) enum DetachedStream {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(net::UnixStream),
}

impl Listener {
    /// Gives a port to the runtime. Has to be called within it.
    ///
    /// # Errors
    /// If the runtime cannot have it.
    pub fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    /// The same with a unix socket.
    ///
    /// # Errors
    /// If the runtime cannot have it.
    pub fn unix(listener: net::UnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?, file))
    }

    /// Waits for the next connection.
    pub(super) async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // An IPv4 address is the same one on a socket for IPv6.
                Ok(Stream::Tcp(stream, address.ip().to_canonical()))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

impl DetachedStream {
    /// Gives it to the runtime that runs this.
    pub(super) fn attach(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream, address) => Ok(Stream::Tcp(TcpStream::from_std(stream)?, address)),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

impl Stream {
    /// Takes it from its runtime.
    pub(super) fn detach(self) -> io::Result<DetachedStream> {
        match self {
            Self::Tcp(stream, address) => Ok(DetachedStream::Tcp(stream.into_std()?, address)),
            Self::Unix(stream) => stream.into_std().map(DetachedStream::Unix),
        }
    }

    /// The address of the other end; a unix socket has none.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The address and port that the other end has reached; a unix socket has none.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream, _) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits for the first byte; `None` if there will be none. That of a unix socket is not known, and
    /// its end is taken for one.
    pub(super) async fn first_byte(&self) -> Option<u8> {
        let mut first = [0];
        let there = match self {
            Self::Tcp(stream, _) => stream.peek(&mut first).await.is_ok_and(|count| count == 1),
            Self::Unix(stream) => stream.readable().await.is_ok(),
        };
        there.then_some(first[0])
    }
}

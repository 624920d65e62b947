//! A wire tap: it passes bytes on between a client and a server, and keeps them.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What went over the wire: one text a connection and direction.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Vec<Stream>>>);

/// What went one way over one connection.
type Stream = Arc<Mutex<Vec<u8>>>;

impl Tap {
    /// Listens on a free port, and leads to `server`, for as long as the test runs.
    pub(crate) fn before(server: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tap, address) = (Self::default(), listener.local_addr().unwrap());
        let kept = tap.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                kept.pass_on(client.try_clone().unwrap(), server.try_clone().unwrap());
                kept.pass_on(server, client);
            }
        });
        (tap, address)
    }

    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        self.0.lock().unwrap().push(kept.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                kept.lock().unwrap().extend(&buffer[..read]);
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    /// What stood between two texts, wherever the first one went over the wire; each once.
    pub(crate) fn between(&self, before: &str, after: char) -> Vec<String> {
        let kept = self.0.lock().unwrap().clone();
        let texts =
            kept.iter().map(|kept| String::from_utf8(kept.lock().unwrap().clone()).unwrap());
        let mut found: Vec<_> = texts
            .flat_map(|text| {
                let rest = text.split(before).skip(1);
                rest.map(|rest| rest.split(after).next().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

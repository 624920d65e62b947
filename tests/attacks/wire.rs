//! Bytes on a socket, what comes back, and whether anything was signed.

use std::{net::SocketAddr, time::Duration};

use agentpmt_proxy::store::Journal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::common::TestProxy;

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// One attack: its name, the bytes as [`bytes`] takes them, and the answers as [`told`] gives them.
pub(crate) trait Row {
    fn parts(&self) -> (&str, &str, &str);
}

impl<T: AsRef<str>, B: AsRef<str>> Row for (T, B, &str) {
    fn parts(&self) -> (&str, &str, &str) {
        (self.0.as_ref(), self.1.as_ref(), self.2)
    }
}

/// The bytes of a text: `$HOST` is the address of the proxy and a line end is CR LF. A bare LF is
/// written ␊, a bare CR ␍, a NUL ␀; every other character is one byte of that number.
pub(crate) fn bytes(text: &str, host: &str) -> Vec<u8> {
    let text = text.replace("$HOST", host).replace('\n', "\r\n");
    let text = text.replace('␊', "\n").replace('␍', "\r").replace('␀', "\0");
    text.chars().map(|character| u8::try_from(character).unwrap()).collect()
}

/// Sends these bytes and reads until the other side closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Whoever is refused early may be cut off while it still sends.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of each answer, with the code of ours: `200, 421 wrong_host`; or `closed`.
pub(crate) fn told(answers: &str) -> String {
    let mut all = Vec::new();
    let mut rest = answers;
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(given, _)| *given == name).map(|(_, value)| value)
        };
        let status = head.split(' ').nth(1).unwrap();
        let code = field("x-agentpmt-proxy-error");
        all.push(code.map_or(status.to_owned(), |code| format!("{status} {code}")));
        let length = field("content-length").map_or(0, |length| length.parse().unwrap());
        // The answer to a HEAD states a length and has no body.
        rest = behind.get(length..).unwrap_or_default();
    }
    if all.is_empty() { "closed".to_owned() } else { all.join(", ") }
}

impl TestProxy {
    /// What comes back for these bytes, as it stands.
    pub(crate) async fn raw(&self, text: &str) -> String {
        exchange(self.address, &bytes(text, &self.address.to_string())).await
    }

    /// How many calls were put on record as signed, and how many went upstream.
    pub(crate) async fn work(&self) -> (usize, u64) {
        self.proxy.flush().await;
        let journal = Journal::open(&self.folder().path().join("proxy.db")).unwrap();
        let records = journal.tail(10_000).unwrap();
        let kinds = records.iter().map(|record| record.fields().unwrap().text("kind"));
        let signed = kinds.filter(|kind| kind.as_deref() == Some("signed")).count();
        let counts = self.sandbox.counts();
        (signed, counts.requests - counts.sessions)
    }

    /// Asserts of each row that it is told what it says, and that nothing was signed or sent.
    pub(crate) async fn repels<R: Row>(&self, rows: impl IntoIterator<Item = R>) {
        let before = self.sandbox.counts().requests;
        self.check(rows, (0, 0)).await;
        assert_eq!(self.sandbox.counts().requests, before, "nor did a session begin");
    }

    /// Asserts of each row that it is told what it says, and that one call was signed and sent.
    pub(crate) async fn signs<R: Row>(&self, rows: impl IntoIterator<Item = R>) {
        self.check(rows, (1, 1)).await;
    }

    async fn check<R: Row>(&self, rows: impl IntoIterator<Item = R>, work: (usize, u64)) {
        let mut wrong = String::new();
        for row in rows {
            let (trick, text, expected) = row.parts();
            let before = self.work().await;
            let answer = self.raw(text).await;
            let after = self.work().await;
            let (told, done) = (told(&answer), (after.0 - before.0, after.1 - before.1));
            if told != expected || done != work {
                wrong += &format!("{trick:?}: {told}, not {expected}; {done:?} {answer:?}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }
}

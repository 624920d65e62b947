//! `events`: what a running proxy tells of as it happens.

use std::{collections::VecDeque, time::Duration};

use clap::Args;
use reqwest::{Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};

use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::print_while_read,
    remote::{ProxyPlace, Remote},
    runtime::block_on,
};
use crate::waiting::Pace;

/// After this time without a word, three of its heartbeats, the proxy is taken to be gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Print the events of a running proxy as they happen
///
/// Reservations that are made, about to end and ended; submissions that are approved or rejected; new
/// sessions; the API out of reach and back. A client sees its own, an admin all. The token of the client
/// is taken from AGENTPMT_PROXY_TOKEN. When the connection breaks, as at a restart of the proxy, it is made
/// again, and no event is missed or printed twice.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy events --json")]
pub(super) struct EventsCommand {
    /// Where the proxy is: https://HOST:PORT, http://HOST:PORT on this machine or unix:PATH; otherwise
    /// where the configuration listens
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Go on after this event, by its id
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
}

impl EventsCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let remote = Remote::new(ProxyPlace::new(self.url.as_deref(), &settings)?)?;
        block_on(self.print_all(&remote))
    }

    /// Prints events until the reader of the output has gone.
    async fn print_all(mut self, remote: &Remote) -> Result<(), Failure> {
        let (mut pace, mut is_first) = (Pace::default(), true);
        loop {
            match self.open(remote).await {
                Ok(Some(response)) => {
                    (pace, is_first) = (Pace::default(), false);
                    if !self.print_from(response).await? {
                        return Ok(());
                    }
                }
                Ok(None) => {}
                // A proxy that was never there is told of at once.
                Err(failure @ Failure::NoAnswerFrom { .. }) if !is_first => {
                    tracing::debug!(%failure, "tried again");
                }
                Err(failure) => return Err(failure),
            }
            sleep(pace.next_pause()).await;
        }
    }

    /// Opens the stream; `None` if the proxy is too busy for it.
    async fn open(&self, remote: &Remote) -> Result<Option<Response>, Failure> {
        let mut request = remote.get("/proxy/events");
        if let Some(after) = self.after {
            request = request.header("last-event-id", after);
        }
        let place = || remote.place().to_string();
        let response = request.send().await.map_err(|cause| Failure::NoAnswerFrom {
            place: place(),
            cause: cause.without_url(),
        })?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Ok(None),
            status => {
                let body = response.bytes().await.unwrap_or_default();
                let problem: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
                let detail = problem.get("detail").and_then(Value::as_str).map(str::to_owned);
                let detail = detail.unwrap_or_else(|| format!("it answered {status}"));
                Err(Failure::RefusedBy { place: place(), detail })
            }
        }
    }

    /// Prints the events of a stream to its end; tells whether the output is still open.
    async fn print_from(&mut self, mut response: Response) -> Result<bool, Failure> {
        let mut blocks = Blocks::default();
        while let Ok(Ok(Some(bytes))) = timeout(SILENCE, response.chunk()).await {
            for block in blocks.add(&bytes) {
                self.after = block.id.or(self.after);
                let Some(line) = self.line(&block) else { continue };
                if !print_while_read(&format!("{line}\n"))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The line for an event; `None` for a block that has none.
    fn line(&self, Block { id, data }: &Block) -> Option<String> {
        let mut data: Map<String, Value> = serde_json::from_str(data.as_deref()?).ok()?;
        if self.json {
            data.insert("id".to_owned(), (*id).into());
            return Some(Value::from(data).to_string());
        }
        let text = |name| data.get(name).and_then(Value::as_str).unwrap_or("-");
        let number = |name| data.get(name).and_then(Value::as_u64);
        let more = match (number("seconds_left"), number("reward_credits")) {
            (Some(seconds), _) => format!("{seconds} s left"),
            (_, Some(credits)) => format!("{credits} credits"),
            _ => String::new(),
        };
        let [time, client, event, job] = ["time", "client", "event", "job_id"].map(text);
        let line = format!("{time}  {client:12}  {event:20}  {job:24}  {more}");
        Some(line.trim_end().to_owned())
    }
}

/// The blocks of a stream, which an empty line ends.
#[derive(Debug, Default)]
struct Blocks {
    line: Vec<u8>,
    block: Block,
}

/// The fields of a block.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    id: Option<u64>,
    data: Option<String>,
}

impl Blocks {
    /// The blocks that end in these bytes.
    fn add(&mut self, bytes: &[u8]) -> VecDeque<Block> {
        let mut ended = VecDeque::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            match line.split_once(": ") {
                Some(("id", id)) => self.block.id = id.parse().ok(),
                Some(("data", data)) => self.block.data = Some(data.to_owned()),
                _ if line.is_empty() => ended.push_back(std::mem::take(&mut self.block)),
                _ => {}
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_however_they_are_cut() {
        let text =
            "retry: 1000\nid: 7\n\n:\n\nid: 9\nevent: x\ndata: {\"a\":\"\u{e9}\"}\n\nid: 10\n";
        let mut whole = Blocks::default();
        let expected = whole.add(text.as_bytes());
        let data = Some("{\"a\":\"\u{e9}\"}".to_owned());
        let [first, comment, event] =
            [(Some(7), None), (None, None), (Some(9), data)].map(|(id, data)| Block { id, data });
        assert_eq!(expected, [first, comment, event]);
        let mut bytes = Blocks::default();
        let cut: VecDeque<_> = text.as_bytes().chunks(1).flat_map(|byte| bytes.add(byte)).collect();
        assert_eq!(cut, expected);
    }
}

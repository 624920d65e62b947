//! What the program holds in secret, looked for wherever it writes: logs, answers, files, its
//! environment and its output. At the most verbose level, over a whole loop with trouble in it.

#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use agentpmt_proxy::{
    sandbox::{Sandbox, Settings},
    types::ClientToken,
};
use memchr::memmem::Finder;
use rustix::process::geteuid;
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    binary::{Home, PASSWORD, Server, until},
    common,
    tap::Tap,
};

/// The private key of the wallet: the same byte throughout.
const KEY: [u8; 32] = [0x42; 32];

const WRONG_PASSWORD: &str = "incorrect horse";

const GENERAL: &str = "/api/external/jobs/68f0a1c27b3e4d5f60718201";
const LOST: &str = "/api/external/jobs/68f0a1c27b3e4d5f60718203";
const WORKFLOW: &str = "/api/external/jobs/68f0a1c27b3e4d5f60718202";
const LIST: &str = "/api/external/jobs/list";

/// Trouble at calls that only read, which is over after at most a few tries.
const FAULTS: [&str; 12] = [
    "wrong_signature",
    "malformed_signature",
    "session_expired_text",
    "session_detail_code",
    "forget_sessions",
    "replay",
    "status_500_before",
    "cut_before",
    "cut_after",
    "cut_in_answer",
    "not_json",
    "huge",
];

#[test]
fn nothing_secret_gets_out_with_a_log_for_people() {
    nothing_secret_gets_out("text");
}

#[test]
fn nothing_secret_gets_out_with_a_log_for_programs() {
    nothing_secret_gets_out("json");
}

fn nothing_secret_gets_out(format: &str) {
    let scene = Scene::set(format);
    let (stranger, unused) = (ClientToken::random(), ClientToken::random());
    let answers = scene.whole_loop(&stranger, &unused);
    let mut places = scene.places();
    places.extend(answers);
    let tokens = [&scene.token, &stranger, &unused];
    let (secrets, home) = (secrets(&scene.tap, &tokens), scene.end(&mut places));
    assert_eq!(found(&secrets, &places), Vec::<String>::new());

    // None of them would have been missed.
    let mut planted = Vec::new();
    for (number, secret) in secrets.iter().enumerate() {
        for (spelling, bytes) in secret.spellings.iter().enumerate() {
            let path = home.path(&format!("state/planted.{number}.{spelling}"));
            fs::write(&path, [b"\0x", &bytes[..], b"y"].concat()).unwrap();
            planted.push(format!("{} in {}", secret.name, path.display()));
        }
    }
    let seen = found(&secrets, &files(&home.path("state")));
    planted.retain(|planted| !seen.contains(planted));
    assert_eq!(planted, Vec::<String>::new());
}

/// A proxy with one client, whose way to a sandbox is tapped.
struct Scene {
    home: Home,
    server: Server,
    sandbox: Sandbox,
    tap: Tap,
    token: ClientToken,
    _runtime: Runtime,
}

impl Scene {
    fn set(format: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let sandbox = Sandbox::new(Settings::default());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = sandbox.clone();
        runtime.spawn(async move { serving.serve(listener).await });
        let (tap, upstream) = Tap::before(address);

        let home = Home::with_wallet().with_password(PASSWORD).with("RUST_LOG", "trace");
        home.write("proxy.toml", &settings(upstream, format));
        let added = home.run(&["client", "add", "ci", "--allow", "jobs", "--admin"]).result();
        let token = added.lines().next().unwrap().parse().unwrap();
        let server = home.serve(&["serve"]);
        Self { home, server, sandbox, tap, token, _runtime: runtime }
    }

    /// Makes every call, also as somebody else; gives what was answered.
    fn whole_loop(&self, stranger: &ClientToken, unused: &ClientToken) -> Vec<Place> {
        let mut calls = Calls { address: self.server.address, token: &self.token, places: vec![] };
        calls.ok("POST", "/api/external/auth/session", "");
        calls.ok("POST", LIST, r#"{"limit":5,"signature":"0xbad","session_nonce":"mine"}"#);
        for (job, is_workflow) in [(GENERAL, false), (WORKFLOW, true)] {
            let reserved = calls.ok("POST", &format!("{job}/reserve"), "");
            let id = reserved["job"]["reservation_id"].as_str().unwrap();
            let mut proof = serde_json::json!({"proof_text": "done", "reservation_id": id});
            if is_workflow {
                proof["workflow_id"] = calls.workflow(job);
            }
            calls.ok("GET", "/proxy/reservations", "");
            calls.ok("POST", &format!("{job}/complete"), &proof.to_string());
            calls.ok("POST", &format!("{job}/status"), "");
        }
        self.trouble(&mut calls);
        calls.ok("GET", "/proxy/status", "");

        for wrong in [stranger.expose(), &stranger.expose()[1..], &format!("{}0", unused.expose())]
        {
            calls.send("POST", LIST, &format!("authorization: Bearer {wrong}\r\n"), "");
        }
        calls.send("POST", &format!("{LIST}?token={}", unused.expose()), "", "");
        let basic = format!("authorization: Basic {}\r\n", unused.expose());
        calls.send("POST", LIST, &basic, "");
        calls.places
    }

    /// Makes the upstream fail in many ways, and loses the answers of changes.
    fn trouble(&self, calls: &mut Calls<'_>) {
        for fault in FAULTS {
            self.sandbox.inject(format!("{fault}:job_list:1").parse().unwrap());
            calls.as_client("POST", LIST, "", "");
            self.sandbox.clear_faults();
        }
        for fault in ["cut_after", "wrong_signature", "huge"] {
            self.sandbox.inject(format!("{fault}:job_reserve:1").parse().unwrap());
            let key = format!("idempotency-key: {fault}\r\n");
            for _ in 0..2 {
                calls.as_client("POST", &format!("{LOST}/reserve"), &key, "");
            }
            self.sandbox.clear_faults();
        }
        self.sandbox.inject("session_invalid_text:session:1".parse().unwrap());
        self.sandbox.inject("session_code:job_status:2".parse().unwrap());
        calls.as_client("POST", &format!("{GENERAL}/status"), "", "");
        self.sandbox.clear_faults();
    }

    /// What can be seen of the process while it runs, and what the other commands print.
    fn places(&self) -> Vec<Place> {
        let hang_up = format!("kill -HUP {}", self.server.id());
        assert!(Command::new("sh").args(["-c", &hang_up]).status().unwrap().success());
        until(|| self.server.log().contains("reloaded the configuration"));
        let mut places = files(&self.home.path(""));
        for name in ["cmdline", "environ", "limits"] {
            // Only root can read the environment of a process that has closed its memory.
            if name != "environ" || geteuid().is_root() {
                let bytes = fs::read(format!("/proc/{}/{name}", self.server.id())).unwrap();
                places.push(Place::new(name, bytes));
            }
        }
        let limits = String::from_utf8_lossy(&places.last().unwrap().bytes);
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
        let core: Vec<_> = core.unwrap().split_whitespace().take(2).collect();
        assert_eq!(core, ["0", "0"]);

        let commands: [&[&str]; 6] = [
            &["client", "list", "--json"],
            &["journal", "export"],
            &["journal", "tail", "-n", "1000"],
            &["wallet", "list"],
            &["check"],
            &["explain", "job_list"],
        ];
        for command in commands {
            let ran = self.home.run(command);
            places.push(Place::new(&command.join(" "), ran.stdout + &ran.stderr));
        }
        let wrong = Home::with_wallet().with_password(WRONG_PASSWORD);
        let ran = wrong.run(&["serve", "--listen", "127.0.0.1:0"]);
        ran.fails(77, &["password"]);
        places.push(Place::new("a wrong password", ran.stderr));
        places
    }

    /// Ends the proxy; adds what it has written until then, and leaves behind.
    fn end(self, places: &mut Vec<Place>) -> Home {
        let ended = self.server.signal("TERM");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for word in ["session begun", "ending", "unknown_token", "first_line_that_differs"] {
            assert!(ended.stderr.contains(word), "no {word}: {}", ended.stderr);
        }
        places.push(Place::new("stdout", ended.stdout));
        places.push(Place::new("stderr", ended.stderr));
        places.extend(files(&self.home.path("")));
        self.home
    }
}

fn settings(upstream: SocketAddr, format: &str) -> String {
    format!(
        "[upstream]\nurl = 'http://{upstream}'\nsettle_time = '100ms'\nchange_timeout = '4s'\n\
         [log]\nlevel = 'trace'\nformat = '{format}'\n"
    )
}

/// Calls, and what was answered to them.
struct Calls<'a> {
    address: SocketAddr,
    token: &'a ClientToken,
    places: Vec<Place>,
}

impl Calls<'_> {
    /// Creates, updates and publishes a workflow; gives its id.
    fn workflow(&mut self, job: &str) -> Value {
        let created = self.ok("POST", &format!("{job}/workflow/create"), common::WORKFLOW);
        let workflow = format!("{job}/workflow/{}", created["workflow_id"].as_str().unwrap());
        self.ok("PUT", &workflow, common::WORKFLOW);
        self.ok("POST", &format!("{workflow}/publish"), "");
        created["workflow_id"].clone()
    }

    /// A call of the client's that has to succeed.
    fn ok(&mut self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.as_client(method, path, "", body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    fn as_client(&mut self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let token = format!("authorization: Bearer {}\r\n{headers}", self.token.expose());
        self.send(method, path, &token, body)
    }

    /// Sends a request, and keeps the whole answer, head included.
    fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // So that a test fails instead of hanging.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (host, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {length}\r\n{headers}\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        self.places.push(Place::new(&format!("the answer to {method} {path}"), &*answer));
        answer
    }
}

/// Bytes that a stranger may see.
struct Place {
    name: String,
    bytes: Vec<u8>,
}

impl Place {
    fn new(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), bytes: bytes.into() }
    }
}

/// Every file under a folder.
fn files(folder: &Path) -> Vec<Place> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![Place::new(&path.display().to_string(), fs::read(&path).unwrap())],
        })
        .collect()
}

/// What must not be seen, in every form in which it might be.
struct Secret {
    name: String,
    spellings: Vec<Vec<u8>>,
}

impl Secret {
    /// As it is, and in hex.
    fn new(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        assert!(bytes.len() > 8, "{name} is too short to be told from other text");
        let hex = [hex::encode(bytes), hex::encode_upper(bytes)].map(String::into_bytes);
        let mut spellings = [&[bytes.to_vec()], &hex[..]].concat();
        spellings.dedup();
        Self { name: name.to_owned(), spellings }
    }

    fn also(mut self, spelling: &str) -> Self {
        self.spellings.push(spelling.into());
        self
    }
}

/// Those that were there from the start, and those that went over the wire.
fn secrets(tap: &Tap, tokens: &[&ClientToken]) -> Vec<Secret> {
    // Every three bytes are four characters of base64, wherever they begin.
    let key = Secret::new("the private key", KEY).also(&"QkJC".repeat(10));
    let mut secrets = vec![
        key,
        Secret::new("the password", PASSWORD),
        Secret::new("the wrong password", WRONG_PASSWORD),
    ];
    for token in tokens {
        let random = &token.expose()["apmt_".len()..][..48];
        secrets.push(Secret::new("a client token", random));
        secrets.push(Secret::new("the randomness of a client token", hex::decode(random).unwrap()));
    }
    let nonces = tap.between(r#""session_nonce":""#, '"');
    let signatures = tap.between(r#""signature":"0x"#, '"');
    let workflow_tokens = tap.between(r#""access_token":""#, '"');
    assert!(nonces.len() > 3 && signatures.len() > 20 && workflow_tokens.len() == 1);
    assert_eq!(tap.between("x-job-workflow-token: Bearer ", '\r'), workflow_tokens);
    secrets.extend(nonces.iter().map(|nonce| Secret::new("a nonce", nonce)));
    secrets.extend(workflow_tokens.iter().map(|token| Secret::new("the workflow token", token)));
    for signature in signatures {
        let bytes = hex::decode(&signature).unwrap();
        secrets.push(Secret::new("the r of a signature", &bytes[..32]));
        secrets.push(Secret::new("the s of a signature", &bytes[32..64]));
    }
    secrets
}

/// Where which secret is seen.
fn found(secrets: &[Secret], places: &[Place]) -> Vec<String> {
    let mut found = Vec::new();
    for secret in secrets {
        for spelling in &secret.spellings {
            let finder = Finder::new(spelling);
            let seen = places.iter().filter(|place| finder.find(&place.bytes).is_some());
            found.extend(seen.map(|place| format!("{} in {}", secret.name, place.name)));
        }
    }
    found
}

//! The real program, run in a folder of its own and with an empty environment.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    env,
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, PipeReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// The key file that is cheap to open, its password and its wallet.
pub const KEY_FILE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/keystore/eth-account-scrypt.json");
pub const PASSWORD: &str = "correct horse";
pub const WALLET: &str = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025";

/// A temporary folder to run the program in, and what its environment holds.
pub struct Home {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// One with [`WALLET`] in its `keys`.
    pub fn with_wallet() -> Self {
        let home = Self::new();
        home.write("keys/wallet.json", &fs::read_to_string(KEY_FILE).unwrap());
        home
    }

    /// The same with one more variable.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The same with the password in its variable.
    pub fn with_password(self, password: &str) -> Self {
        self.with("AGENTPMT_PROXY_PASSWORD", password)
    }

    /// The same without the password in its variable.
    pub fn without_password(mut self) -> Self {
        self.environment.retain(|(name, _)| *name != "AGENTPMT_PROXY_PASSWORD");
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, in a folder, that only their owner may read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, text).unwrap();
        self.set_mode(name, 0o600);
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with_input(args, "")
    }

    /// Runs the program to its end; panics if it starts to serve instead.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        self.start(self.command().args(args), input).end()
    }

    /// Runs the program to its end where it has nobody to ask, even if the tests run at a terminal.
    /// `None` if there is a terminal and no way to be rid of it.
    pub fn run_without_terminal(&self, args: &[&str]) -> Option<Ran> {
        if File::open("/dev/tty").is_err() {
            return Some(self.run(args));
        }
        Command::new("setsid").arg("--version").output().ok()?;
        let mut command = self.clean(Command::new("setsid"));
        command.arg("--wait").arg(env!("CARGO_BIN_EXE_agentpmt-proxy")).args(args);
        Some(self.start(&mut command, "").end())
    }

    /// Runs the program until the value is dropped, on a free port.
    pub fn serve(&self, args: &[&str]) -> Server {
        self.serve_where_told(&[args, &["--listen", "127.0.0.1:0"]].concat())
    }

    /// The same, or what came of it if it does not start.
    pub fn try_serve(&self, args: &[&str]) -> Result<Server, Ran> {
        let mut command = self.command();
        command.args(args).args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
        Server::try_of(self.start_with(&mut command))
    }

    /// The same, by a command that lacks only its `--listen`.
    pub fn serve_by(&self, command: &mut Command) -> Server {
        self.serve_as(command.args(["--listen", "127.0.0.1:0"]), Stdio::null())
    }

    /// The same, where the arguments or the settings say.
    pub fn serve_where_told(&self, args: &[&str]) -> Server {
        self.serve_as(self.command().args(args), Stdio::null())
    }

    /// Runs a command that becomes the program to its end.
    pub fn run_as(&self, command: &mut Command, stdin: Stdio) -> Ran {
        self.start_with(command.stdin(stdin)).end()
    }

    /// Runs a command that becomes the program.
    pub fn serve_as(&self, command: &mut Command, stdin: Stdio) -> Server {
        Server::of(self.start_with(command.stdin(stdin)))
    }

    /// The same on a free port, with a pipe for its log that is read by the caller alone.
    pub fn serve_into_pipe(&self, args: &[&str]) -> (Server, PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = self.command();
        command.args(args).args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stderr(writer);
        let unused = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        (Server::of(Self::spawn(&mut command, unused)), reader)
    }

    /// The program, with nothing in its environment that this value does not hold.
    pub fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_agentpmt-proxy").as_ref())
    }
    /// The same for a copy of the program.
    pub fn command_of(&self, program: &Path) -> Command {
        self.clean(Command::new(program))
    }

    /// Another program, with the same environment.
    pub fn wrapped(&self, program: &str) -> Command {
        self.clean(Command::new(program))
    }

    fn clean(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).env_clear();
        command.envs(env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn start(&self, command: &mut Command, input: &str) -> Process {
        let mut process = self.start_with(command.stdin(Stdio::piped()));
        // A program that reads no input may be gone already.
        let _ = process.child.stdin.take().unwrap().write_all(input.as_bytes());
        process
    }

    fn start_with(&self, command: &mut Command) -> Process {
        // A file, since nobody would empty a pipe while the program runs.
        let stderr = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        command.stderr(File::create(&stderr).unwrap());
        Self::spawn(command, stderr)
    }

    fn spawn(command: &mut Command, stderr: tempfile::TempPath) -> Process {
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Process { child, stdout, stderr }
    }
}

/// A program that runs; it is killed when dropped.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: tempfile::TempPath,
}

impl Process {
    /// The next line of its output, without its end; `None` once it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn end(mut self) -> Ran {
        let mut stdout = String::new();
        while let Some(line) = self.line() {
            assert!(!line.contains("listens on"), "it serves");
            stdout += &line;
            stdout.push('\n');
        }
        let code = self.child.wait().unwrap().code();
        Ran { code, stdout, stderr: fs::read_to_string(&self.stderr).unwrap() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until it is so; fails after a minute.
#[track_caller]
pub fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came to be");
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Its output, after a run that was good and said nothing else.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, &*self.stderr), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Its output, after a run that was good and may have told people more.
    #[track_caller]
    pub fn result(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// What it told people beside its output, after a run that was good.
    #[track_caller]
    pub fn told(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stderr
    }

    /// The same as [`Ran::ok`], as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Asserts that it failed with this exit code and said so in one line with all of these words.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("agentpmt-proxy: "), "{self:?}");
        self.fails_at_length(code, words);
    }

    /// The same, for a text of several lines.
    #[track_caller]
    pub fn fails_at_length(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?}: {self:?}");
        }
    }

    /// Asserts that none of these texts was printed.
    #[track_caller]
    pub fn keeps(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{self:?}");
        }
    }
}

/// The program while it serves; it is killed when dropped.
pub struct Server {
    /// Zeros if its first listener is no port.
    pub address: SocketAddr,
    /// Where it says that it listens.
    pub place: String,
    process: Process,
}

impl Server {
    /// One that has said where it listens.
    fn of(process: Process) -> Self {
        Self::try_of(process).unwrap_or_else(|ran| panic!("it ended: {ran:?}"))
    }

    fn try_of(mut process: Process) -> Result<Self, Ran> {
        let Some(line) = process.line() else { return Err(process.end()) };
        let (_, place) = line.split_once(" listens on ").unwrap();
        let address = place.split_once("://").map(|(_, address)| address.parse().unwrap());
        let address = address.unwrap_or(SocketAddr::from(([0; 4], 0)));
        Ok(Self { address, place: place.to_owned(), process })
    }

    /// The next line that it prints, after the first.
    pub fn line(&mut self) -> String {
        self.process.line().unwrap()
    }

    /// The status and the body of the answer to a request without a body.
    pub fn request(&self, method: &str, path: &str) -> (u16, String) {
        self.request_with(method, path, "")
    }

    /// The same with more header lines.
    pub fn request_with(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // So that a test fails instead of hanging.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let host = self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\
             connection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn end(self) -> Ran {
        self.process.end()
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.process.stderr).unwrap()
    }

    /// Waits until it has logged these words, which it does after its answer.
    #[track_caller]
    pub fn logs(&self, words: &str) {
        until(|| self.log().contains(words));
    }

    /// Asserts that it is ready, with this wallet.
    #[track_caller]
    pub fn is_ready(&self, wallet: &str) {
        assert_eq!(self.request("GET", "/readyz").0, 200);
        let (status, body) = self.request("POST", "/api/external/auth/session");
        assert!(status == 200 && body.contains(wallet), "{status} {body}");
    }

    /// Sends a signal, as in `TERM`, and waits for the end.
    pub fn signal(self, name: &str) -> Ran {
        let kill = format!("kill -{name} {}", self.process.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.process.end()
    }
}

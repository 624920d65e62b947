//! Connections that break, go silent, or bring an answer too late.

use super::*;

/// Serves on a free port, but answers the second request for a status over a connection with the answer
/// to the first, and only then to itself.
async fn serve_a_late_answer(router: Router, over: Arc<AtomicUsize>) -> SocketAddr {
    let upstream = serve(router).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let over = over.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let mut first: Option<Vec<u8>> = None;
                // Both are small enough to come whole.
                let (mut request, mut answer) = ([0; 16384], [0; 16384]);
                while let Ok(length @ 1..) = client.read(&mut request).await {
                    let request = &request[..length];
                    server.write_all(request).await.unwrap();
                    let length = server.read(&mut answer).await.unwrap();
                    if request.windows(7).any(|word| word == b"/status") {
                        if let Some(late) = &first {
                            client.write_all(late).await.unwrap();
                        }
                        first.get_or_insert_with(|| answer[..length].to_vec());
                    }
                    let _ = client.write_all(&answer[..length]).await;
                }
                over.fetch_add(1, SeqCst);
            });
        }
    });
    address
}

#[tokio::test]
async fn a_second_answer_is_not_taken_for_that_of_the_next_call() {
    let (sandbox, over) = (Sandbox::new(Settings::default()), Arc::new(AtomicUsize::new(0)));
    let upstream = serve_a_late_answer(sandbox.router(), over.clone()).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    for job in [GENERAL_JOB, WORKFLOW_JOB, GENERAL_JOB, WORKFLOW_JOB] {
        let status = proxy.ok(&format!("/jobs/{job}/status"), "").await;
        assert_eq!(status["job"]["job_id"], job);
    }
    let closed = async {
        while over.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(60), closed).await;
    assert!(closed.is_ok(), "a connection that gave a wrong answer is closed");
}

/// Serves on a free port, but closes a connection that was idle for a second and a quarter when the
/// next request comes, without an answer.
async fn serve_impatiently(router: Router) -> SocketAddr {
    const PATIENCE: Duration = Duration::from_millis(1250);
    let upstream = serve(router).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let (mut buffer, mut idle_since) = ([0; 4096], Instant::now());
                let mut answer = [0; 4096];
                loop {
                    tokio::select! {
                        read = client.read(&mut buffer) => match read {
                            Ok(1..) if idle_since.elapsed() > PATIENCE => return,
                            Ok(length @ 1..) => server.write_all(&buffer[..length]).await.unwrap(),
                            _ => return,
                        },
                        read = server.read(&mut answer) => {
                            client.write_all(&answer[..read.unwrap()]).await.unwrap();
                            idle_since = Instant::now();
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_change_takes_no_connection_that_was_idle() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_impatiently(sandbox.router()).await;
    let no_settling =
        |options: &mut Options| options.upstream.settle_time = Duration::from_secs(3600);
    let proxy = TestProxy::in_front_of(sandbox, upstream, no_settling).await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    let idle = async || tokio::time::sleep(Duration::from_millis(1500)).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    proxy.ok("/jobs/list", "").await;
    idle().await;
    // Otherwise it would be settled for an hour, or in doubt.
    proxy.ok(&format!("{job}/reserve"), "").await;
    proxy.ok("/jobs/list", "").await;
    idle().await;
    proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
}

#[tokio::test]
async fn an_update_whose_connection_breaks_is_made_again() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    proxy.ok(&format!("{job}/reserve"), "").await;
    let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let id = created["workflow_id"].as_str().unwrap();
    let url = proxy.url(&format!("/api/external{job}/workflow/{id}"));
    for fault in ["cut_before", "cut_after"] {
        proxy.sandbox.inject(format!("{fault}:job_workflow_update:1").parse().unwrap());
        let updated = proxy.client.put(&url).body(WORKFLOW).send().await.unwrap();
        assert_eq!(updated.status(), StatusCode::OK, "{fault}");
    }
}

/// A request without a body, to a socket of the proxy.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> String {
    let head = format!("POST /api/external{path} HTTP/1.1\r\nhost: {host}\r\n");
    let rest = "content-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn an_answer_that_came_while_the_process_was_stopped_is_read() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let hold = gate.clone();
    let held = from_fn(move |request: Request, next: Next| {
        let (arrived, hold) = (arrived.clone(), hold.clone());
        async move {
            if !request.uri().path().ends_with("/auth/session") {
                arrived.send(()).unwrap();
                hold.acquire().await.unwrap().forget();
            }
            next.run(request).await
        }
    });
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve(sandbox.router().layer(held)).await);
    let home = Home::with_wallet().with_password(PASSWORD);
    let times = "[upstream]\ntimeout = '9s'\nchange_timeout = '4s'";
    home.write("proxy.toml", times);
    let server = home.serve(&["serve", "--upstream", &upstream]);
    // A try of either has three seconds.
    let paths = ["/jobs/list".to_owned(), format!("/jobs/{GENERAL_JOB}/reserve")];
    let answers = paths.map(|path| {
        let address = server.address;
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            ask(stream, &address.to_string(), &path).await
        })
    });
    for _ in &answers {
        let arrival = tokio::time::timeout(Duration::from_secs(60), arrivals.recv());
        arrival.await.unwrap().unwrap();
    }
    signal(server.id(), "STOP");
    gate.add_permits(answers.len());
    tokio::time::sleep(Duration::from_millis(4500)).await;
    signal(server.id(), "CONT");
    for answer in answers {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(arrivals.try_recv().is_err(), "neither was made again, and no status asked for");
}

fn signal(process: u32, name: &str) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[tokio::test]
async fn a_call_over_a_path_that_went_silent_ends_long_before_its_deadline() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", "[upstream]\ntimeout = '1h'\nconnect_timeout = '1s'");
    let in_network = |script: &str, last: &[&str]| {
        let mut command = home.wrapped("unshare");
        // All of its processes end with the first.
        command.args(["--net", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", script, "sh"]).args(last);
        command
    };
    let can = in_network("ip link set lo up", &[]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return println!("skipped: no network of its own can be made here");
    }
    let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
    // When the file is there, what is sent between the two is lost.
    let script = "ip link set lo up
        \"$1\" sandbox --listen 127.0.0.1:8410 > sandbox.log 2>&1 &
        \"$1\" serve --upstream http://127.0.0.1:8410 --listen unix:p.sock &
        until [ -e silent ]; do sleep 0.05; done; ip link set lo down; touch is-silent; wait";
    let _server = home.serve_as(&mut in_network(script, &[program]), Stdio::null());
    let list = async || {
        ask(UnixStream::connect(home.path("p.sock")).await.unwrap(), "localhost", "/jobs/list")
            .await
    };
    let answered = async { while !list().await.starts_with("HTTP/1.1 200 ") {} };
    tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap();
    home.write("silent", "");
    let is_silent = async {
        while !home.path("is-silent").exists() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_silent).await.unwrap();
    let answer = list().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream_unreachable"),
        "{answer}"
    );
}

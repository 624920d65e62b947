//! A day of sessions on a clock that only the test moves, with an upstream over a real socket.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use axum::{Router, http::StatusCode, routing::post};
use tokio::{
    net::TcpListener,
    task::yield_now,
    time::{advance, sleep},
};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LIFE: Duration = Duration::from_secs(900);

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// An upstream that is slow and sometimes fails.
struct Flaky {
    random: Mutex<Random>,
    ends: Mutex<HashMap<String, Instant>>,
    running: AtomicU32,
    failed: AtomicU32,
    /// Whether it waits for the clock.
    waits: AtomicBool,
}

impl Flaky {
    async fn open(&self) -> Result<String, StatusCode> {
        assert_eq!(self.running.fetch_add(1, SeqCst), 0, "one renewal at a time");
        let (delay, fails) = {
            let mut random = self.random.lock().unwrap();
            (random.below(3000), random.below(3) == 0)
        };
        let begun = Instant::now();
        self.waits.store(true, SeqCst);
        sleep(Duration::from_millis(delay)).await;
        self.waits.store(false, SeqCst);
        self.running.fetch_sub(1, SeqCst);
        if fails {
            self.failed.fetch_add(1, SeqCst);
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let mut ends = self.ends.lock().unwrap();
        let nonce = format!("nonce-{}", ends.len());
        ends.insert(nonce.clone(), begun + LIFE);
        Ok(format!(r#"{{"session_nonce":"{nonce}","expires_in":{}}}"#, LIFE.as_secs()))
    }
}

async fn serve(server: Arc<Flaky>) -> Arc<Sessions> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = move || {
        let server = server.clone();
        async move { server.open().await }
    };
    let router = Router::new().route(SESSION_PATH, post(open));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let upstream = Upstream::on_this_machine(port, Duration::from_secs(30));
    Sessions::new(upstream, Address::new([0; 20]))
}

/// Lets everything happen that does not wait for the clock.
async fn let_run(sessions: &Sessions, server: &Flaky) {
    while sessions.lock().renewal.is_some() && !server.waits.load(SeqCst) {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_renewals_has_no_gap_and_no_request_on_an_ended_session() {
    let server = Arc::new(Flaky {
        random: Mutex::new(Random(1)),
        ends: Mutex::default(),
        running: AtomicU32::new(0),
        failed: AtomicU32::new(0),
        waits: AtomicBool::new(false),
    });
    let sessions = serve(server.clone()).await;
    let mut random = Random(2);
    let mut step = || Duration::from_millis(1 + random.below(7000));

    // Only the first request of all waits.
    while sessions.lock().session.is_none() {
        drop(sessions.nonce(Instant::now()).await);
        let_run(&sessions, &server).await;
        advance(step()).await;
        let_run(&sessions, &server).await;
    }
    let begun = Instant::now();
    let mut requests = 0;
    while begun.elapsed() < DAY {
        let nonce = sessions.nonce(Instant::now()).now_or_never();
        let nonce = nonce.expect("a session without waiting").unwrap();
        let end = server.ends.lock().unwrap()[nonce.expose()];
        assert!(Instant::now() + MAX_ARRIVAL_MARGIN <= end, "it arrives before the end");
        requests += 1;
        let_run(&sessions, &server).await;
        advance(step()).await;
        let_run(&sessions, &server).await;
    }
    let opened = server.ends.lock().unwrap().len();
    let failed = server.failed.load(SeqCst);
    assert!(
        requests > 20_000 && (96..120).contains(&opened) && failed > 20,
        "{requests} {opened} {failed}"
    );
}

//! Clients that go away while a call of theirs, or what settles it, waits for others to be made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use agentpmt_proxy::{
    sandbox::{Sandbox, Settings},
    store::Clients,
};
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use futures_util::future::join;
use http::StatusCode;
use reqwest::Response;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    binary::{Home, PASSWORD, Server},
    common::{self, GENERAL_JOB, problem, serve},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

const LIST: &str = "/api/external/jobs/list";

fn reserve() -> String {
    format!("/api/external/jobs/{GENERAL_JOB}/reserve")
}

/// A program that makes one call at a time, and the sandbox behind it, which looks at lists and
/// reservations only as far as it is let.
struct Narrow {
    home: Home,
    server: Server,
    tokens: [String; 2],
    sandbox: Sandbox,
    /// As many as have arrived there.
    arrived: Arc<Semaphore>,
    /// As many as may go on.
    gate: Arc<Semaphore>,
    /// Whether what came of a reserve is lost on its way back.
    loses_reserves: Arc<AtomicBool>,
}

/// The clients, one after the other.
const CLIENTS: [&str; 2] = ["one", "other"];

impl Narrow {
    async fn start() -> Self {
        let home = Home::with_wallet().with_password(PASSWORD);
        // Nothing runs out of time while it is waited for here.
        let home = home.with("AGENTPMT_PROXY_UPSTREAM__MAX_CALLS", "1");
        let home = home.with("AGENTPMT_PROXY_UPSTREAM__TIMEOUT", "600s");
        let home = home.with("AGENTPMT_PROXY_UPSTREAM__CHANGE_TIMEOUT", "600s");
        let tokens = CLIENTS.map(|name| {
            let added = home.run(&["client", "add", name, "--allow", "jobs"]).result();
            added.lines().next().unwrap().to_owned()
        });
        let sandbox = Sandbox::new(Settings::default());
        let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let loses_reserves = Arc::<AtomicBool>::default();
        let gates = (arrived.clone(), gate.clone(), loses_reserves.clone());
        let upstream = serve(gated(sandbox.router(), gates)).await;
        let server = home.serve(&["serve", "--upstream", &format!("http://{upstream}")]);
        Self { home, server, tokens, sandbox, arrived, gate, loses_reserves }
    }

    async fn send(&self, client: &str, path: &str, id: &str) -> Response {
        let place = CLIENTS.iter().position(|name| *name == client).unwrap();
        let request = common::client().post(format!("{}{path}", self.server.place));
        let request = request.bearer_auth(&self.tokens[place]).header("x-request-id", id);
        request.header("idempotency-key", client).send().await.unwrap()
    }

    /// A list that is with the upstream, so that everything else has to wait.
    async fn hold(&self) -> impl Future<Output = Response> {
        let mut held = Box::pin(self.send("one", LIST, "r-1"));
        tokio::select! {
            answer = &mut held => panic!("{answer:?}"),
            () = self.has_arrived() => {}
        }
        held
    }

    /// Leaves while the call waits.
    async fn send_and_leave(&self, client: &str, path: &str, id: &str) {
        tokio::select! {
            answer = self.send(client, path, id) => panic!("{answer:?}"),
            () = self.is_noted(client) => {}
        }
        self.has_logged_request(id).await;
    }

    async fn has_arrived(&self) {
        timeout(LONG, self.arrived.acquire()).await.unwrap().unwrap().forget();
    }

    /// Once it is noted that a client was here, its call has nothing before it but the wait.
    async fn is_noted(&self, client: &str) {
        let clients = Clients::open(&self.home.path("state/proxy.db")).unwrap();
        let is_noted = || {
            let rows = clients.list().unwrap();
            rows.iter().any(|row| row.client.name.as_str() == client && row.last_used.is_some())
        };
        self.until(is_noted).await;
    }

    async fn has_logged_request(&self, id: &str) {
        self.has_logged(&format!(r#""request_id":"{id}""#)).await;
    }

    async fn has_logged(&self, text: &str) {
        self.until(|| self.server.log().contains(text)).await;
    }

    /// Asks until it is so, and fails instead of hanging.
    async fn until(&self, is_so: impl Fn() -> bool) {
        let asked = async {
            while !is_so() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, asked).await.unwrap_or_else(|_| panic!("{}", self.server.log()));
    }
}

type Gates = (Arc<Semaphore>, Arc<Semaphore>, Arc<AtomicBool>);

fn gated(router: Router, gates: Gates) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (arrived, gate, loses_reserves) = gates.clone();
        async move {
            let path = request.uri().path();
            let is_reserve = path.ends_with("/reserve");
            if is_reserve || path.ends_with("/list") {
                arrived.add_permits(1);
                gate.acquire().await.unwrap().forget();
            }
            let answer = next.run(request).await;
            let is_lost = is_reserve && loses_reserves.load(SeqCst);
            if is_lost { StatusCode::BAD_GATEWAY.into_response() } else { answer }
        }
    }))
}

#[tokio::test]
async fn a_call_whose_client_has_left_while_it_waited_is_not_made() {
    let narrow = Narrow::start().await;
    let held = narrow.hold().await;
    narrow.send_and_leave("other", LIST, "r-2").await;
    // It does not wait for its turn first.
    narrow.has_logged("the client went away before the call could be sent").await;
    let next = async {
        narrow.gate.add_permits(2);
        narrow.send("one", LIST, "r-3").await
    };
    let (held, next) = timeout(LONG, join(held, next)).await.unwrap();
    assert_eq!((held.status().as_u16(), next.status().as_u16()), (200, 200));
    assert_eq!(narrow.sandbox.counts().requests, 3, "a session and two lists");
    let journal = narrow.home.run(&["journal", "tail"]).ok();
    let calls = |client: &str| journal.contains(&format!("  {client:12}  job_"));
    assert!(calls("one") && !calls("other"), "{journal}");
}

#[tokio::test]
async fn a_change_under_a_key_is_made_for_who_comes_back_for_its_answer() {
    let narrow = Narrow::start().await;
    let (held, reserve) = (narrow.hold().await, reserve());
    narrow.send_and_leave("other", &reserve, "r-2").await;
    narrow.gate.add_permits(2);
    let again = narrow.send("other", &reserve, "r-3");
    let (held, again) = timeout(LONG, join(held, again)).await.unwrap();
    assert_eq!((held.status().as_u16(), again.status().as_u16()), (200, 200));
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(narrow.sandbox.counts().requests, 3, "a session, a list and a reserve");
}

#[tokio::test]
async fn what_came_of_a_change_is_looked_up_although_its_client_has_left() {
    let narrow = Narrow::start().await;
    narrow.loses_reserves.store(true, SeqCst);
    let reserve = reserve();
    tokio::select! {
        answer = narrow.send("one", &reserve, "r-1") => panic!("{answer:?}"),
        () = narrow.has_arrived() => {}
    }
    narrow.has_logged_request("r-1").await;
    // The list comes next, so that the look has to wait.
    let unlock = async {
        narrow.is_noted("other").await;
        narrow.gate.add_permits(1);
        narrow.has_arrived().await;
        narrow.gate.add_permits(1);
    };
    let (list, ()) = timeout(LONG, join(narrow.send("other", LIST, "r-2"), unlock)).await.unwrap();
    assert_eq!(list.status(), 200);
    // It is reserved once more, for its instructions.
    narrow.has_arrived().await;
    narrow.gate.add_permits(1);
    narrow.has_logged("its instructions came only with an answer that was lost").await;
    narrow.gate.add_permits(1);
    let again = problem(narrow.send("one", &reserve, "r-3").await).await;
    assert_eq!((&again["code"], &again["processed"]), (&"outcome_unknown".into(), &true.into()));
}

//! Every fault of the sandbox against every call: what is submitted, and what the client is told.

use std::{mem, net::SocketAddr, sync::Arc, time::Duration};

use agentpmt_proxy::{
    action::{ACTIONS, About, Action, Effect},
    sandbox::{KINDS, Sandbox, Settings},
};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use crate::common::{
    Options, PUBLISHED_WORKFLOW, TestProxy, WORKFLOW, WORKFLOW_JOB, json, refusing, serve_sandbox,
};

/// How many cells are tried at once.
const AT_ONCE: usize = 48;

/// The kinds that strike nothing but payments, which are tried by themselves.
const OF_PAYMENTS: [&str; 5] =
    ["paid_then_cut", "settles_late", "challenge_changed", "wrong_domain", "amount_raised"];

/// Within that time the proxy sees that its connections have ended.
const SEEN: Duration = Duration::from_millis(100);

/// What the client was told, and what the sandbox counted.
#[derive(Debug)]
struct Told {
    status: u16,
    /// The problem, if it was one of the proxy's.
    problem: Value,
    /// How often a proof arrived, or credits were spent.
    submissions: u64,
    /// How often a proof was taken, or credits were spent.
    accepted: u64,
}

impl Told {
    /// The status, or the code and what else a problem says.
    fn short(&self) -> String {
        let text = |name: &str| self.problem[name].as_str().unwrap_or("-").to_owned();
        match &self.problem {
            Value::Null => self.status.to_string(),
            problem => format!(
                "{} processed={} retry={}",
                text("code"),
                problem["processed"],
                text("retry")
            ),
        }
    }

    /// Whether it says that the call took effect; `None` if it does not say.
    fn took_effect(&self) -> Option<bool> {
        match &self.problem {
            Value::Null if (200..300).contains(&self.status) => Some(true),
            problem if problem["processed"] == true => Some(true),
            problem if problem["retry"] == "safe" => Some(false),
            _ => None,
        }
    }

    /// What has to hold whatever happens.
    fn check(&self, action: &Action, cell: &str) {
        assert!(self.submissions <= 1, "{cell}: submitted more than once: {self:?}");
        let is_counted = matches!(action.effect, Effect::Submits | Effect::Spends);
        if is_counted && self.problem.is_null() && (200..300).contains(&self.status) {
            assert_eq!(self.accepted, 1, "{cell}: told success: {self:?}");
        }
        if self.problem["retry"] == "safe" {
            assert_eq!(self.submissions, 0, "{cell}: told that it is safe to repeat: {self:?}");
        }
        if self.problem["processed"] == true {
            assert!(
                !is_counted || self.accepted == 1,
                "{cell}: told that it took effect: {self:?}"
            );
        }
    }
}

/// One row of each kind that faults can tell apart.
fn rows() -> Vec<&'static Action> {
    let mut rows: Vec<&Action> = Vec::new();
    for action in ACTIONS {
        let kind = |row: &Action| (mem::discriminant(&row.proof), row.effect, row.lookup);
        let is_alike = |row: &Action| kind(row) == kind(action) && row.method == action.method;
        if !rows.iter().any(|row| is_alike(row)) {
            rows.push(action);
        }
    }
    rows
}

fn patience(options: &mut Options) {
    options.upstream.timeout = Duration::from_secs(4);
    options.upstream.change_timeout = Duration::from_secs(4);
    options.upstream.spend_timeout = Duration::from_secs(4);
}

/// Does what an agent does before it makes a call; gives the call's path and body.
async fn prepare(proxy: &TestProxy, action: &'static Action) -> (String, String) {
    let mut workflow = PUBLISHED_WORKFLOW.to_owned();
    let is_about = |id| action.id_names().any(|name| name == id);
    if is_about("job_id") && action.effect != Effect::Reserves {
        proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    }
    let submits = action.effect == Effect::Submits;
    if submits || action.about == About::Job && is_about("workflow_id") {
        let path = format!("/jobs/{WORKFLOW_JOB}/workflow/create");
        let created = proxy.ok(&path, WORKFLOW).await;
        workflow = created["workflow_id"].as_str().unwrap().to_owned();
    }
    if submits {
        proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/{workflow}/publish"), "").await;
    }
    let path = action.path.replace("{job_id}", WORKFLOW_JOB).replace("{workflow_id}", &workflow);
    let path = path.replace("{product_slug}", "ai-writing-quality-check");
    let path = path.replace("{action_slug}", "check-for-banned-phrases");
    let path = path.replace("{product_id}", "69a1c0d2e3f4051627384902");
    let body = match action.body {
        _ if submits => format!(r#"{{"proof_text":"done","workflow_id":"{workflow}"}}"#),
        fields if fields.iter().any(|field| field.name == "nodes") => WORKFLOW.to_owned(),
        fields if fields.iter().any(|field| field.name == "parameters") => {
            r#"{"parameters":{}}"#.to_owned()
        }
        _ if action.name == "workflow_end" => {
            let started = proxy.ok(&format!("/workflows/{workflow}/start"), "").await;
            format!(
                r#"{{"parameters":{{"workflow_session_id":{}}}}}"#,
                started["workflow_session_id"]
            )
        }
        _ if action.name == "credits_purchase" => {
            let wallet = proxy.proxy.wallets()[0];
            format!(r#"{{"wallet_address":"{wallet}","credits":500,"payment_method":"x402"}}"#)
        }
        _ => String::new(),
    };
    let path = if action.is_paid_row(ACTIONS) { path + "?pay=x402" } else { path };
    (path, body)
}

/// The same through a proxy with more patience, which ends then; gives its folder as well.
async fn prepared(
    sandbox: &Sandbox,
    upstream: SocketAddr,
    action: &'static Action,
) -> (Arc<TempDir>, String, String) {
    let proxy = TestProxy::in_front_of(sandbox.clone(), upstream, |_| {}).await;
    let (path, body) = prepare(&proxy, action).await;
    proxy.proxy.drained().await;
    (proxy.folder(), path, body)
}

async fn tell(proxy: &TestProxy, action: &Action, path: &str, body: String) -> Told {
    let request = proxy.client.request(action.method.clone(), proxy.url(path)).body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let ours = response.headers().contains_key("x-agentpmt-proxy-error");
    let problem = if ours { json(response).await } else { Value::Null };
    let (submissions, accepted) = match action.effect {
        Effect::Spends => {
            let ledger = proxy.sandbox.ledger();
            let spent = ledger.iter().filter(|entry| entry.credits < 0).count() as u64;
            (spent, spent)
        }
        _ => (proxy.sandbox.submissions(WORKFLOW_JOB), proxy.sandbox.accepted(WORKFLOW_JOB)),
    };
    Told { status, problem, submissions, accepted }
}

/// One cell: a fresh sandbox and proxy, one fault, one call.
async fn cell(fault: String, action: &'static Action) -> Told {
    let sandbox = Sandbox::new(Settings { credits: 100, ..Settings::default() });
    let upstream = serve_sandbox(&sandbox).await;
    let (folder, path, body) = prepared(&sandbox, upstream, action).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
        patience(options);
        options.folder = folder;
    })
    .await;
    proxy.sandbox.inject(fault.parse().unwrap());
    let told = tell(&proxy, action, &path, body).await;
    let cell = format!("{fault} × {action}");
    told.check(action, &cell);
    proxy.sandbox.clear_faults();
    check_reservation(&proxy, action, &told, &cell).await;
    told
}

/// What a reserve was told of itself has to be so.
async fn check_reservation(proxy: &TestProxy, action: &Action, told: &Told, cell: &str) {
    let Some(reserved) = told.took_effect().filter(|_| action.name == "job_reserve") else {
        return;
    };
    let response = proxy.post(&format!("/jobs/{WORKFLOW_JOB}/status"), "").await;
    let status = json(response).await;
    assert_eq!(status["has_active_reservation"], reserved, "{cell}: {told:?}, then {status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_cell_a_job_is_submitted_at_most_once_and_what_is_told_is_true() {
    let faults = KINDS.iter().filter(|kind| !OF_PAYMENTS.contains(&kind.name()));
    let faults = faults.flat_map(|kind| {
        // Once at the call, always at the call, and always at every call.
        ["1 of it", "all of it", "everything"].map(|much| (kind.name(), much))
    });
    let rows = rows();
    let cells = faults.flat_map(|(kind, much)| {
        rows.iter().map(move |action| match much {
            "1 of it" => (format!("{kind}:{action}:1"), action),
            "all of it" => (format!("{kind}:{action}"), action),
            _ => (kind.to_owned(), action),
        })
    });
    let cells: Vec<_> = cells.map(|(fault, action)| cell(fault, action)).collect();
    let count = cells.len();
    let told: Vec<_> = stream::iter(cells).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!((told.len(), count), (count, (KINDS.len() - OF_PAYMENTS.len()) * rows.len() * 3));
}

/// What a completion that meets a fault once leads to.
const COMPLETION: &[(&str, &str)] = &[
    ("slow", "200"),
    ("slow_before", "200"),
    ("status_429", "200"),
    ("status_503", "200"),
    ("status_500_before", "200"),
    ("status_502_before", "200"),
    ("status_500_after", "200"),
    ("session_detail_code", "200"),
    ("session_error_code", "200"),
    ("session_code", "200"),
    ("session_invalid_text", "200"),
    ("session_expired_text", "200"),
    ("forget_sessions", "200"),
    ("replay", "200"),
    ("replay_text", "200"),
    ("wrong_signature", "401"),
    ("malformed_signature", "401"),
    ("cut_before_body", "200"),
    ("cut_in_body", "200"),
    ("cut_before", "200"),
    ("cut_after", "200"),
    ("cut_in_answer", "200"),
    ("hang_before", "outcome_unknown processed=null retry=check_first"),
    ("hang_after", "200"),
    ("not_json", "200"),
    ("huge", "200"),
    ("paid_then_cut", "200"),
    ("settles_late", "200"),
    ("challenge_changed", "200"),
    ("wrong_domain", "200"),
    ("amount_raised", "200"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_meets_a_fault_once_ends_as_it_should() {
    let names: Vec<_> = COMPLETION.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(names, KINDS.iter().map(|kind| kind.name()).collect::<Vec<_>>(), "every kind");
    let action = Action::named("job_complete").unwrap();
    let cells = COMPLETION.iter().map(|(kind, expected)| async move {
        let told = cell(format!("{kind}:job_complete:1"), action).await;
        assert_eq!(told.short(), *expected, "{kind}: {told:?}");
    });
    stream::iter(cells).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// An upstream that cannot be spoken to.
enum Down {
    /// Nobody listens at its port.
    RefusedPort,
    /// It speaks no TLS.
    NoTls,
}

/// A call whose upstream goes down after everything before it went well.
async fn down(how: Down, action: &'static Action) -> Told {
    let sandbox = Sandbox::new(Settings::default());
    let (_served, upstream) = run(&sandbox).await;
    let (_port, nobody) = refusing();
    let (folder, path, body) = prepared(&sandbox, upstream, action).await;
    let before = sandbox.counts().requests;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
        patience(options);
        // Less than one try may take, so that none ends while it connects.
        options.upstream.connect_timeout = Duration::from_millis(500);
        options.folder = folder;
        let url = match how {
            Down::RefusedPort => format!("http://{nobody}"),
            Down::NoTls => format!("https://{upstream}"),
        };
        options.upstream.url = url.parse().unwrap();
    })
    .await;
    let told = tell(&proxy, action, &path, body).await;
    assert_eq!(proxy.sandbox.counts().requests, before, "{action}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_cannot_be_spoken_to_gets_nothing_and_every_call_is_safe_to_repeat() {
    let cells = ACTIONS.iter().flat_map(|action| {
        [Down::RefusedPort, Down::NoTls].map(|how| async move {
            let told = down(how, action).await;
            assert_eq!(told.short(), "upstream_unreachable processed=null retry=safe", "{action}");
            told.check(action, action.name);
        })
    });
    stream::iter(cells).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// Serves a sandbox until the task is ended.
async fn run(sandbox: &Sandbox) -> (JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sandbox = sandbox.clone();
    (tokio::spawn(async move { sandbox.serve(listener).await }), address)
}

async fn end(served: JoinHandle<()>) {
    served.abort();
    let _ = served.await;
}

/// Serves at an address of which the listener has gone, once the port is free again.
async fn run_again(sandbox: &Sandbox, address: SocketAddr) -> ! {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    sandbox.serve(listener).await;
    panic!("the sandbox serves for ever")
}

/// A call whose upstream is restarted: before it comes, or while it is there, by this fault.
async fn restarted(fault: Option<&str>, action: &'static Action) -> Told {
    let sandbox = Sandbox::new(Settings { credits: 100, ..Settings::default() });
    let (served, upstream) = run(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox.clone(), upstream, |_| {}).await;
    let (path, body) = prepare(&proxy, action).await;
    proxy.ok("/jobs/list", "").await;
    let arm = |fault| sandbox.inject(format!("{fault}:{action}:1").parse().unwrap());
    fault.into_iter().for_each(arm);
    if fault.is_none() {
        served.abort();
        // What is sent over a connection whose end has not been seen is lost.
        sleep(SEEN).await;
    }
    let restart = async {
        if let Some(fault) = fault {
            while !sandbox.counts().faults.contains_key(fault) {
                tokio::task::yield_now().await;
            }
        }
        end(served).await;
        run_again(&sandbox, upstream).await
    };
    let told = tokio::select! {
        told = tell(&proxy, action, &path, body) => told,
        never = restart => never,
    };
    let cell = format!("restart, {fault:?} × {action}");
    told.check(action, &cell);
    // The last upstream is gone with the restart.
    let upstream = serve_sandbox(&sandbox).await;
    let folder = proxy.folder();
    let later = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    check_reservation(&later, action, &told, &cell).await;
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_restarts_in_the_middle_is_waited_for() {
    // A fault strikes the first row of a route.
    let rows = ACTIONS.iter().filter(|action| !action.is_paid_row(ACTIONS));
    let cells = rows.flat_map(|action| {
        [None, Some("hang_before"), Some("hang_after")].map(|fault| async move {
            let told = restarted(fault, action).await;
            let unknown =
                |processed, retry| format!("outcome_unknown processed={processed} retry={retry}");
            // What becomes of an edit shows nowhere, but twice may be the same as once; what was lost on
            // the way was not processed.
            let expected = match (fault, action.effect) {
                _ if action.method.is_idempotent() => "200".to_owned(),
                // Nothing may be paid.
                (None, Effect::Pays) => "402".to_owned(),
                (None, _) | (_, Effect::None) => "200".to_owned(),
                (_, Effect::Other | Effect::Spends | Effect::Pays) => {
                    unknown("null", "check_first")
                }
                (Some("hang_after"), Effect::Submits) => "200".to_owned(),
                (Some("hang_after"), _) => unknown("true", "never"),
                (Some(_), _) => "200".to_owned(),
            };
            assert_eq!(told.short(), expected, "{fault:?} × {action}: {told:?}");
        })
    });
    stream::iter(cells).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

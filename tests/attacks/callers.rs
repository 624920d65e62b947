//! Callers who are not who they say, or want what is not theirs.

use agentpmt_proxy::{
    policy::Client,
    store::Clients,
    types::{ClientToken, Credential},
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    common::{GENERAL_JOB, TestProxy, WORKFLOW_JOB},
    wire::told,
};

/// A proxy that has clients.
struct Shared {
    proxy: TestProxy,
    clients: Clients,
}

impl Shared {
    async fn new() -> Self {
        let proxy = TestProxy::start().await;
        let clients = Clients::create(&proxy.folder().path().join("proxy.db")).unwrap();
        Self { proxy, clients }
    }

    /// Adds a client that may make every call about jobs, with something about it changed; gives its
    /// token.
    fn add(&mut self, name: &str, change: impl FnOnce(&mut Client)) -> String {
        let (name, allow) = (name.parse().unwrap(), "jobs".parse().unwrap());
        let mut client = Client { name, allow, admin: false, ..Client::local() };
        change(&mut client);
        let token = ClientToken::random();
        let credential = Credential::Token(token.hash());
        self.clients.add(&client, &credential, Timestamp::now()).unwrap();
        token.expose().to_owned()
    }
}

/// A call with these lines of head.
fn call(path: &str, head: &str, body: &str) -> String {
    format!(
        "POST /api/external{path} HTTP/1.1\nhost: $HOST\nconnection: close\n{head}\
         content-length: {}\n\n{body}",
        body.len()
    )
}

/// What the proxy answers by itself, to clients alone.
const OWN_PATHS: [&str; 7] = [
    "POST /api/external/auth/session",
    "GET /proxy/status",
    "GET /proxy/reservations",
    "POST /proxy/reload",
    "GET /proxy/approvals/5ff41667-9cb0-4b43-a080-a7349a6b44ad",
    "POST /proxy/freeze",
    "POST /proxy/thaw",
];

fn own_path(line: &str, head: &str) -> String {
    format!("{line} HTTP/1.1\nhost: $HOST\nconnection: close\n{head}content-length: 0\n\n")
}

fn list(head: &str) -> String {
    call("/jobs/list", head, "")
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\n")
}

/// The token with one character changed.
fn mistyped(token: &str, at: usize) -> String {
    let other = if &token[at..=at] == "0" { "1" } else { "0" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[tokio::test]
async fn whoever_has_no_good_token_is_refused() {
    let mut shared = Shared::new().await;
    let token = shared.add("ci", |_| {});
    let guess = ClientToken::random().expose().to_owned();
    let (unknown, malformed) = ("401 unknown_token", "401 malformed_authorization");
    let rows = [
        (String::new(), "401 unauthenticated"),
        ("x-forwarded-for: 127.0.0.1\nx-real-ip: 127.0.0.1\n".to_owned(), "401 unauthenticated"),
        ("x-forwarded-user: ci\nx-client: ci\nfrom: ci\n".to_owned(), "401 unauthenticated"),
        (format!("proxy-authorization: Bearer {token}\n"), "401 unauthenticated"),
        (format!("x-api-key: {token}\ncookie: token={token}\n"), "401 unauthenticated"),
        (bearer(&guess), unknown),
        (bearer(&mistyped(&token, 5)), "401 mistyped_token"),
        (bearer(&mistyped(&token, 60)), "401 mistyped_token"),
        (bearer(&token[..60]), "401 mistyped_token"),
        (bearer("apmt_"), "401 mistyped_token"),
        (bearer(&format!("{token}0")), "401 mistyped_token"),
        (bearer(&format!("{token} {token}")), "401 mistyped_token"),
        (bearer(&format!("{token},{token}")), "401 mistyped_token"),
        (bearer(&format!("{token}; a=b")), "401 mistyped_token"),
        (bearer(&format!("{token}\u{a0}")), unknown),
        (bearer(&format!("{token}\u{e4}")), unknown),
        (bearer(&format!("{token}␀")), "400"),
        (bearer(&token.to_uppercase()), unknown),
        (bearer(&format!("\"{token}\"")), malformed),
        (bearer(""), unknown),
        (bearer("' OR 1=1 --"), unknown),
        (bearer("null"), unknown),
        (format!("authorization: Basic {token}\n"), malformed),
        (format!("authorization: {token}\n"), malformed),
        (format!("authorization: Bearer{token}\n"), malformed),
        (format!("authorization: Bearer\t{token}\n"), malformed),
        (bearer(&token).repeat(2), malformed),
        (bearer(&guess) + &bearer(&token), malformed),
        (bearer(&token) + "authorization: Basic bG9jYWw6\n", malformed),
    ];
    let rows = rows.iter().map(|(head, expected)| (head, list(head), *expected));
    shared.proxy.repels(rows).await;
    let query = list("").replace("/list", &format!("/list?access_token={token}"));
    let in_body = call("/jobs/list", "", &format!(r#"{{"access_token":"{token}"}}"#));
    let rows = [("query", query), ("body", in_body)];
    shared.proxy.repels(rows.map(|(trick, text)| (trick, text, "401 unauthenticated"))).await;
}

#[tokio::test]
async fn a_token_in_the_wrong_place_is_told_where_it_belongs() {
    let mut shared = Shared::new().await;
    let token = shared.add("ci", |_| {});
    let place = "put `Bearer ` and nothing else in front of the token";
    for (head, words) in [
        (format!("authorization: {token}\n"), place),
        (format!("authorization: Token {token}\n"), place),
        (format!("authorization: Bearer Bearer {token}\n"), place),
        (format!("authorization: Bearer \"{token}\"\n"), place),
        (bearer(&token).repeat(2), "more than once"),
    ] {
        let answer = shared.proxy.raw(&list(&head)).await;
        assert!(answer.contains(words) && !answer.contains(&token), "{head}: {answer}");
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_is_told() {
    let mut shared = Shared::new().await;
    shared.add("ci", |_| {});
    for line in OWN_PATHS {
        let text = own_path(line, "");
        let answer = shared.proxy.raw(&text).await;
        assert_eq!(told(&answer), "401 unauthenticated", "{line}");
        let challenge = "www-authenticate: Bearer realm=\"agentpmt-proxy\"\r\n";
        assert!(answer.contains(challenge) && !answer.contains("0x"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_is_revoked_or_over_is_refused_at_once() {
    let mut shared = Shared::new().await;
    let revoked = shared.add("revoked", |_| {});
    let ended = Timestamp::now() - SignedDuration::from_secs(1);
    let over = shared.add("over", |client| client.expires = Some(ended));
    let over_admin = shared.add("over-admin", |client| {
        (client.admin, client.expires) = (true, Some(ended));
    });
    shared.proxy.signs([("before", list(&bearer(&revoked)), "200")]).await;
    shared.clients.revoke(&"revoked".parse().unwrap(), Timestamp::now()).unwrap();
    let again = shared.add("revoked", |_| {});
    let rows = [
        ("revoked, though its name is there again", &revoked, "401 unknown_token"),
        ("over", &over, "403 access_ended"),
        ("admin whose time is over", &over_admin, "403 access_ended"),
    ];
    shared
        .proxy
        .repels(rows.map(|(trick, token, expected)| (trick, list(&bearer(token)), expected)))
        .await;
    shared.proxy.signs([("again", list(&bearer(&again)), "200")]).await;
    for line in OWN_PATHS {
        let text = own_path(line, &bearer(&over_admin));
        shared.proxy.repels([(line, text, "403 access_ended")]).await;
    }
}

#[tokio::test]
async fn a_client_stays_within_its_rights() {
    let mut shared = Shared::new().await;
    let reader = shared.add("reader", |client| client.allow = "read".parse().unwrap());
    let admin = shared.add("admin", |client| {
        (client.allow, client.admin) = ("job_list".parse().unwrap(), true);
    });
    let elsewhere = shared.add("elsewhere", |client| {
        client.wallet = Some("0x0000000000000000000000000000000000000001".parse().unwrap());
    });
    let once = shared.add("once", |client| client.rate = Some("1/d".parse().unwrap()));
    let reserve = |token: &str| call(&format!("/jobs/{GENERAL_JOB}/reserve"), &bearer(token), "");
    shared.proxy.signs([("its one call", list(&bearer(&once)), "200")]).await;
    // Another wallet in the body is part of the envelope, which is dropped.
    let wallet = shared.proxy.proxy.wallet_of(&Client::local());
    let body = format!(r#"{{"wallet_address":"{wallet}"}}"#);
    shared
        .proxy
        .repels([
            ("reader", reserve(&reader), "403 not_allowed"),
            ("admin", reserve(&admin), "403 not_allowed"),
            ("elsewhere", list(&bearer(&elsewhere)), "403 not_allowed"),
            ("by the body", call("/jobs/list", &bearer(&elsewhere), &body), "403 not_allowed"),
            ("once", list(&bearer(&once)), "429 rate_exceeded"),
        ])
        .await;
    let reader = list(&bearer(&reader));
    shared.proxy.signs([("reader", reader, "200"), ("admin", list(&bearer(&admin)), "200")]).await;
}

#[tokio::test]
async fn the_reservation_of_one_client_is_out_of_reach_of_another() {
    let mut shared = Shared::new().await;
    let [owner, other] = ["owner", "other"].map(|name| bearer(&shared.add(name, |_| {})));
    let proof = r#"{"proof_text":"done"}"#;
    let key = "idempotency-key: k\n";
    let reserve =
        |job: &str, head: &str| call(&format!("/jobs/{job}/reserve"), &format!("{key}{head}"), "");
    let rows = [GENERAL_JOB, WORKFLOW_JOB]
        .map(|job| (job, reserve(job, &owner).replace(": k\n", &format!(": {job}\n")), "200"));
    shared.proxy.signs(rows).await;

    let reach = |head: &str| {
        let put = call(&format!("/jobs/{WORKFLOW_JOB}/workflow/w"), head, "{}");
        [
            call(&format!("/jobs/{GENERAL_JOB}/complete"), head, proof),
            call(&format!("/jobs/{GENERAL_JOB}/status"), head, ""),
            call(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), head, "{}"),
            call(&format!("/jobs/{WORKFLOW_JOB}/workflow/w/publish"), head, "{}"),
            put.replacen("POST", "PUT", 1),
            reserve(GENERAL_JOB, head),
            reserve(GENERAL_JOB, head).replace(": k\n", &format!(": {GENERAL_JOB}\n")),
        ]
    };
    let told_other = reach(&other).map(|text| (text.clone(), text, "409 held_by_another"));
    shared.proxy.repels(told_other).await;
    let lines = "GET /proxy/reservations HTTP/1.1\nhost: $HOST\nconnection: close\n";
    let seen = async |who: &str| shared.proxy.raw(&format!("{lines}{who}\n")).await;
    assert!(seen(&owner).await.contains(GENERAL_JOB));
    assert!(seen(&other).await.ends_with(r#"{"reservations":[]}"#), "nor is it seen");
    let [complete, status, ..] = reach(&owner);
    shared.proxy.signs([("status", status, "200"), ("complete", complete, "200")]).await;
}

#[tokio::test]
async fn an_idempotency_key_of_one_client_tells_another_nothing() {
    let mut shared = Shared::new().await;
    let [owner, other] = ["owner", "other"].map(|name| bearer(&shared.add(name, |_| {})));
    let reserve = |job: &str, head: &str, keys: &str| {
        call(&format!("/jobs/{job}/reserve"), &format!("{keys}{head}"), "")
    };
    let key = "idempotency-key: shared\n";
    shared.proxy.signs([("owner", reserve(GENERAL_JOB, &owner, key), "200")]).await;
    shared
        .proxy
        .repels([
            ("told again", reserve(GENERAL_JOB, &owner, key), "200"),
            ("told to another", reserve(GENERAL_JOB, &other, key), "409 held_by_another"),
            ("for another job", reserve(WORKFLOW_JOB, &owner, key), "422 idempotency_key_reused"),
        ])
        .await;
    let bad = [
        ("twice", key.repeat(2)),
        ("empty", "idempotency-key:\n".to_owned()),
        ("empty with quotes", "idempotency-key: \"\"\n".to_owned()),
        ("of another line", "idempotency-key: a b\n".to_owned()),
        ("above ASCII", "idempotency-key: \u{e4}\n".to_owned()),
        ("without end", format!("idempotency-key: {}\n", "a".repeat(1025))),
    ];
    let expected = "400 invalid_idempotency_key";
    let rows =
        bad.iter().map(|(trick, keys)| (trick, reserve(WORKFLOW_JOB, &other, keys), expected));
    shared.proxy.repels(rows).await;
    shared.proxy.signs([("its own", reserve(WORKFLOW_JOB, &other, key), "200")]).await;
}

#[tokio::test]
async fn the_same_without_the_trick_is_signed() {
    let mut shared = Shared::new().await;
    let token = shared.add("ci", |_| {});
    let heads = [
        bearer(&token),
        format!("Authorization: bearer {token}\n"),
        format!("AUTHORIZATION: BEARER {token}\n"),
        format!("authorization:   Bearer  {token} \t \n"),
        bearer(&token) + "x-forwarded-for: 192.0.2.1\nforwarded: for=192.0.2.1\n",
    ];
    shared.proxy.signs(heads.iter().map(|head| (head, list(head), "200"))).await;
}

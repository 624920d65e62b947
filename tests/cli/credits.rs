//! A limit of credits over the death of the process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Json,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    binary::{Home, PASSWORD, Server},
    common::{self, client, serve},
};

const INVOKE: &str = "/api/external/tools/writing/actions/check/invoke";
const TOOLS: &str = "/api/external/tools";

/// The charge of the tool, and the limit of the client.
const PRICE: u64 = 7;
const LIMIT: u64 = 500;

/// How often the proxy is killed, and how many calls are then under way.
const KILLS: u64 = 10;
const CALLS: usize = 6;

async fn invoke(place: &str, token: &str) -> Option<(u16, Value)> {
    let request = client().post(format!("{place}{INVOKE}")).bearer_auth(token);
    let response = request.body(r#"{"parameters":{}}"#).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, serde_json::from_str(&response.text().await.ok()?).ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_counts_over_ten_kills() {
    let (charged, paid) = (Arc::<AtomicU64>::default(), watch::Sender::new(0));
    let (till, paying) = (charged.clone(), paid.clone());
    let tool = from_fn(move |request: Request, next: Next| {
        let (till, paying) = (till.clone(), paying.clone());
        async move {
            match request.uri().path() {
                TOOLS => {
                    let action = json!({ "slug": "check", "price_credits": PRICE });
                    Json(json!({ "tools": [{ "slug": "writing", "actions": [action] }] }))
                        .into_response()
                }
                INVOKE => {
                    till.fetch_add(PRICE, SeqCst);
                    paying.send_modify(|paid| *paid += 1);
                    Json(json!({ "charged_credits": PRICE })).into_response()
                }
                _ => next.run(request).await,
            }
        }
    });
    let upstream = serve(Sandbox::new(Settings::default()).router().layer(tool)).await;
    let home = Home::with_wallet().with_password(PASSWORD);
    let limit = format!("{LIMIT}/day");
    let add = ["client", "add", "ci", "--allow", "tools", "--max-credits", &limit];
    let token = home.run(&add).result().trim_end().to_owned();
    let start = async || -> Server {
        let server = home.serve(&["serve", "--upstream", &format!("http://{upstream}")]);
        let list = common::client().get(format!("{}{TOOLS}", server.place)).bearer_auth(&token);
        assert!(list.send().await.unwrap().status().is_success());
        server
    };
    for kill in 0..KILLS {
        let mut server = start().await;
        let until = *paid.borrow() + 1 + kill % (CALLS as u64 - 1);
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (place, token) = (server.place.clone(), token.clone());
            calls.spawn(async move { drop(invoke(&place, &token).await) });
        }
        paid.subscribe().wait_for(|paid| *paid >= until).await.unwrap();
        server.kill();
        calls.join_all().await;
    }
    let server = start().await;
    let refused = loop {
        match invoke(&server.place, &token).await.unwrap() {
            (200, _) => assert!(charged.load(SeqCst) <= LIMIT),
            (status, refused) => break (status, refused),
        }
    };
    assert_eq!((refused.0, &refused.1["code"]), (429, &json!("credit_limit_reached")));
    let charged = charged.load(SeqCst);
    assert!((PRICE * KILLS..=LIMIT).contains(&charged), "{charged}");
    let row = &home.run(&["client", "list", "--json"]).json()[0];
    let left: u64 = row["credits_left"].as_str().unwrap().parse().unwrap();
    assert!(row["max_credits"] == limit && left < PRICE && left <= LIMIT - charged, "{row}");
}

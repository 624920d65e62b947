//! The list of jobs, of which a client is not shown what another client holds, whatever its form.

use std::sync::{Arc, Mutex};

use agentpmt_proxy::{policy::Client, sandbox::Settings};
use axum::{
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use http::header::CONTENT_TYPE;

use crate::{
    agents::{Agent, may},
    common::{GENERAL_JOB, TestProxy},
};

/// A proxy whose upstream answers these bytes for the list of jobs.
async fn lists(list: &Arc<Mutex<Vec<u8>>>) -> TestProxy {
    let list = list.clone();
    let layer = from_fn(move |request: Request, next: Next| {
        let list = list.lock().unwrap().clone();
        async move {
            match request.uri().path().ends_with("/jobs/list") {
                true => ([(CONTENT_TYPE, "application/json")], list).into_response(),
                false => next.run(request).await,
            }
        }
    });
    TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await
}

#[tokio::test]
async fn a_job_of_another_client_is_withheld_from_a_list_of_any_form() {
    let list = Arc::default();
    let proxy = lists(&list).await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let ops = Agent::add(&proxy, &Client { admin: true, ..may("ops", "jobs") });
    let shown = async |agent: &Agent| agent.post("/jobs/list", "").await.text().await.unwrap();
    let forms = ["job_id", "id", "_id"].map(|name| {
        let job = format!(r#"{{"{name}":"{GENERAL_JOB}","job_instructions":"secret"}}"#);
        format!(r#"{{"data":[{job}],"jobs":[{job}],"x":{{"reserved_jobs":[{job}]}}}}"#)
    });
    let [json, ..] = &forms;
    let utf16 = json.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let [nan, more] = [json.replace("[{", "[NaN,{"), format!("{json}x")].map(String::into_bytes);
    let unreadable: [Vec<u8>; 3] = [utf16, nan, more];

    *list.lock().unwrap() = unreadable[2].clone();
    assert!(shown(&other).await.contains("secret"), "while no client holds a job");
    assert!(one.reserve(GENERAL_JOB).await.status().is_success());
    for form in forms {
        *list.lock().unwrap() = form.clone().into();
        let seen = shown(&other).await;
        assert!(seen.contains("reserved_jobs") && !seen.contains("secret"), "{form}: {seen}");
        assert_eq!((shown(&one).await, shown(&ops).await), (form.clone(), form));
    }
    for form in unreadable {
        *list.lock().unwrap() = form.clone();
        assert_eq!(other.refused("/jobs/list", "").await, (502, "answer_unchecked".to_owned()));
        for agent in [&one, &ops] {
            assert_eq!(agent.post("/jobs/list", "").await.bytes().await.unwrap(), form);
        }
    }
    list.lock().unwrap().clear();
    assert_eq!(shown(&other).await, "", "nothing is in it");
}

//! Completions, which have a key of their own.

use super::*;

#[tokio::test]
async fn the_proof_for_a_reservation_goes_out_once_whatever_key_it_comes_with() {
    let folder = Folder::new();
    let store = folder.open();
    let boss = Client { admin: true, ..client("boss") };
    let clients = [client("ci"), boss, client("other")];
    let [ci, boss, other] = added(&folder, &store, clients).await;
    reserved(&store, &ci, "job1", 1800, 0).await;
    let complete = |client, body| Operation::of(client, "job_complete", "job1", body);
    let proof = r#"{"proof_text":"done"}"#;
    let begun = started(&store, &under(complete(&ci, proof), "one"), 0).await;
    let id = begun.grant.as_ref().unwrap().reservation_id.as_ref().unwrap();
    assert_eq!(id.as_str(), r#""r-1""#, "the one that it did not name");
    let beside = [under(complete(&ci, proof), "two"), complete(&boss, proof), complete(&ci, "{}")];
    for beside in beside.map(impatient) {
        let running = store.begin(&beside, moment(0)).await.unwrap();
        assert!(matches!(running, Begun::Running), "{running:?}");
    }
    send(&store, &complete(&ci, proof), &begun.claim, SETTLES).await;
    let ended = end(KeyEnd::Answered(answer("{}")), JobEnd::Submitted);
    finish(&store, &complete(&ci, proof), &begun.claim, &ended, 0).await;
    drop(begun);

    let named = r#"{"proof_text":"done","reservation_id":"r-1"}"#;
    for again in [
        under(complete(&ci, proof), "one"),
        under(complete(&ci, proof), "two"),
        under(complete(&ci, proof), "two"),
        complete(&ci, named),
        complete(&boss, proof),
    ] {
        assert_eq!(answered(&store, &again, 1).await, answer("{}"), "{:?}", again.key);
    }
    let job = || "job1".parse().unwrap();
    let submitted = Denied::Submitted(job());
    assert_eq!(denied(&store, &complete(&ci, r#"{"proof_text":"more"}"#), 1).await, submitted);
    assert_eq!(denied(&store, &complete(&other, proof), 1).await, Denied::Holder(job()));
    let later = r#"{"proof_text":"done","reservation_id":"r-2"}"#;
    drop(started(&store, &complete(&ci, later), 1).await);
    // The job is reserved again, and its proof is another one.
    reserved(&store, &ci, "job1", 3600, 2000).await;
    folder.tamper("UPDATE reservations SET reservation_id = 'r-3'");
    assert_eq!(doubt(&store, &complete(&ci, proof), 2000).await, None);
}

#[tokio::test]
async fn a_completion_in_doubt_stays_so_when_its_reservation_is_renewed() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    // The second has ended long before its job is reserved again, so that is no renewal.
    for (job, ends, again, expected) in
        [("job1", 1800, 10, of_this_run(SETTLES)), ("job2", 5, 600, None)]
    {
        reserved(&store, &local, job, ends, 0).await;
        let complete = Operation::of(&local, "job_complete", job, r#"{"proof_text":"a"}"#);
        let begun = started(&store, &complete, 0).await;
        send(&store, &complete, &begun.claim, SETTLES).await;
        drop(begun);
        let newer = Reservation {
            reservation_id: Some("r-2".to_owned()),
            ..reservation(&job.to_uppercase(), &local, 3600)
        };
        let reserve = Operation::of(&local, "job_reserve", job, "");
        make(&store, &reserve, end(KeyEnd::Free, JobEnd::Reserved(newer)), again).await;
        let begun = started(&store, &complete, again).await;
        let id = begun.grant.as_ref().unwrap().reservation_id.as_ref().unwrap();
        assert_eq!((id.as_str(), begun.doubt), (r#""r-2""#, expected), "{job}");
    }
}

#[tokio::test]
async fn a_completion_that_was_not_made_gives_way_to_another_proof_and_no_other_does() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    let complete = |body| Operation::of(&local, "job_complete", "job1", body);
    let (first, other) = (complete(r#"{"proof_text":"a"}"#), complete(r#"{"proof_text":"b"}"#));
    let begun = started(&store, &first, 0).await;
    send(&store, &first, &begun.claim, SETTLES).await;
    drop(begun);
    let is_other = Some(Doubt { is_other: true, ..of_this_run(SETTLES).unwrap() });
    assert_eq!(doubt(&store, &other, 0).await, is_other);
    assert_eq!(doubt(&store, &first, 0).await, of_this_run(SETTLES), "it is still the first one's");
    // It turns out that the first proof was submitted: the key that came with the other one is free.
    let keyed = under(other.clone(), "k");
    let begun = started(&store, &keyed, 0).await;
    let ended = end(KeyEnd::AnsweredOther(answer("first")), JobEnd::Unchanged);
    finish(&store, &keyed, &begun.claim, &ended, 0).await;
    drop(begun);
    assert_eq!(answered(&store, &first, 0).await, answer("first"));
    for again in [&keyed, &other] {
        assert!(matches!(denied(&store, again, 0).await, Denied::Submitted(_)));
    }
    folder.tamper("UPDATE answers SET answer = NULL");

    let begun = started(&store, &other, 0).await;
    send(&store, &other, &begun.claim, SETTLES).await;
    let ended = end(KeyEnd::Answered(answer("{}")), JobEnd::Submitted);
    finish(&store, &other, &begun.claim, &ended, 0).await;
    drop(begun);
    assert_eq!(answered(&store, &other, 1).await, answer("{}"));
    assert!(matches!(denied(&store, &first, 1).await, Denied::Submitted(_)));
}

#[tokio::test]
async fn an_answer_that_may_be_of_an_earlier_reservation_is_doubted() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    let complete = Operation::of(&local, "job_complete", "job1", "{}");
    make(&store, &complete, end(KeyEnd::Answered(answer("{}")), JobEnd::Submitted), 0).await;
    assert_eq!(answered(&store, &complete, 0).await, answer("{}"));
    let unknown = Reservation { reservation_id: None, ..reservation("job1", &local, 1800) };
    let reserve = Operation::of(&local, "job_reserve", "job1", "");
    make(&store, &reserve, end(KeyEnd::Free, JobEnd::Reserved(unknown)), 0).await;
    assert_eq!(doubt(&store, &complete, 0).await, Some(Doubt::long_ago(false)));
    make(&store, &complete, with("{}"), 0).await;
    let other = Operation::of(&local, "job_complete", "job1", r#"{"proof_text":"better"}"#);
    assert_eq!(doubt(&store, &other, 0).await, Some(Doubt::long_ago(true)));
}

#[tokio::test]
async fn a_submission_that_is_seen_again_keeps_its_reservation_until_the_job_is_reserved_again() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    let body = r#"{"proof_text":"a","reservation_id":"r-1"}"#;
    let submitted = || end(KeyEnd::InDoubt(None), JobEnd::Submitted);
    for body in [body, r#"{"proof_text":"a"}"#] {
        make(&store, &Operation::of(&local, "job_complete", "job1", body), submitted(), 0).await;
    }
    let sql = "SELECT count(*) FROM reservations
               WHERE state = 'submitted' AND reservation_id = 'r-1'";
    assert_eq!(folder.number(sql), 1);
    reserved(&store, &local, "job1", 1800, 0).await;
    assert_eq!(folder.number(sql), 0);
}

//! Calls with an idempotency key.

use super::*;

#[tokio::test]
async fn the_first_answer_is_given_again() {
    let folder = Folder::new();
    let store = folder.open();
    make(&store, &keyed(), with("{}"), 0).await;
    assert_eq!(answered(&store, &keyed(), 2).await, answer("{}"));
    drop(store);
    assert_eq!(answered(&folder.open(), &keyed(), 3).await, answer("{}"));
}

#[tokio::test]
async fn a_key_belongs_to_one_client_and_one_call() {
    let folder = Folder::new();
    let store = folder.open();
    let [one, another] = added(&folder, &store, [client("one"), client("another")]).await;
    let reserve = |client, job| under(Operation::of(client, "job_reserve", job, ""), "key");
    let begun = started(&store, &reserve(&one, "job1"), 0).await;
    drop(begun);
    make(&store, &reserve(&one, "job1"), with("{}"), 0).await;
    let other = store.begin(&reserve(&one, "job2"), moment(0)).await.unwrap();
    assert!(matches!(other, Begun::KeyReused), "{other:?}");
    assert!(started(&store, &reserve(&another, "job2"), 0).await.doubt.is_none());
}

#[tokio::test]
async fn calls_of_one_process_with_one_key_are_made_one_after_the_other() {
    let folder = Folder::new();
    let store = folder.open();
    let first = started(&store, &keyed(), 0).await;
    let second = store.begin(&impatient(keyed()), moment(0)).await.unwrap();
    assert!(matches!(second, Begun::Running), "{second:?}");
    let again = keyed();
    let mut second = Box::pin(store.begin(&again, moment(0)));
    assert!((&mut second).now_or_never().is_none());
    finish(&store, &keyed(), &first.claim, &with("{}"), 0).await;
    drop(first);
    assert!(matches!(second.await.unwrap(), Begun::Answered(_)));
}

#[tokio::test]
async fn of_many_at_once_one_begins() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open(), folder.open()];
    let all = (0..60).map(|number| {
        let store = stores[number % 3].clone();
        async move { store.begin(&impatient(keyed()), moment(0)).await.unwrap() }
    });
    let (running, started): (Vec<_>, Vec<_>) =
        join_all(all).await.into_iter().partition(|begun| matches!(begun, Begun::Running));
    assert!(matches!(&started[..], [Begun::Started(_)]), "{started:?}");
    assert_eq!(running.len(), 59);
}

#[tokio::test]
async fn a_call_of_another_process_with_the_same_key_is_running_until_that_has_died() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let begun = started(&one, &keyed(), 0).await;
    send(&one, &keyed(), &begun.claim, SETTLES).await;
    let running = other.begin(&keyed(), moment(0)).await.unwrap();
    assert!(matches!(running, Begun::Running), "{running:?}");
    drop((begun, one));
    let stores = [other, folder.open()];
    let all = join_all((0..40).map(|number| {
        let store = stores[number % 2].clone();
        async move { store.begin(&impatient(keyed()), moment(1)).await.unwrap() }
    }));
    let (mut taken, mut running) = (Vec::new(), 0);
    for begun in all.await {
        match begun {
            Begun::Started(started) => taken.push(started.doubt),
            Begun::Running => running += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, running), (vec![of_a_dead_run(SETTLES)], 39), "one takes it over");
}

#[tokio::test]
async fn a_claim_that_is_dropped_leaves_its_key_in_doubt_if_it_was_sent_and_free_if_not() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(doubt(&store, &keyed(), 0).await, None);
    assert_eq!(doubt(&store, &keyed(), 0).await, None);
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    drop(begun);
    assert_eq!(doubt(&store, &keyed(), 1).await, of_this_run(SETTLES));
    drop(store);
    // A call that a dead process had not sent is free, too.
    let other = under(keyed(), "other");
    drop(started(&folder.open(), &other, 1).await);
    assert_eq!(doubt(&folder.open(), &other, 1).await, None);
}

#[tokio::test]
async fn a_call_that_was_taken_over_ends_like_a_new_one() {
    let folder = Folder::new();
    let dead = folder.open();
    let begun = started(&dead, &keyed(), 0).await;
    send(&dead, &keyed(), &begun.claim, SETTLES).await;
    drop((begun, dead));
    let store = folder.open();
    let begun = started(&store, &keyed(), 1).await;
    assert_eq!(begun.doubt, of_a_dead_run(SETTLES));
    finish(&store, &keyed(), &begun.claim, &with("{}"), 1).await;
    drop(begun);
    assert_eq!(answered(&store, &keyed(), 2).await, answer("{}"));
}

#[tokio::test]
async fn a_call_settles_at_the_latest_time_that_was_said() {
    let folder = Folder::new();
    let store = folder.open();
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    drop(begun);
    for (said, known) in [(SETTLES + 30, SETTLES + 30), (SETTLES - 30, SETTLES + 30)] {
        let begun = started(&store, &keyed(), 1).await;
        store.prolong(&begun.claim, at(said)).await.unwrap();
        drop(begun);
        assert_eq!(doubt(&store, &keyed(), 1).await, of_this_run(known));
        let begun = started(&store, &keyed(), 1).await;
        let ended = end(KeyEnd::InDoubt(Some(at(said))), JobEnd::Unchanged);
        finish(&store, &keyed(), &begun.claim, &ended, 1).await;
        drop(begun);
        assert_eq!(doubt(&store, &keyed(), 1).await, of_this_run(known));
    }
    // After a day it is another call.
    let begun = started(&store, &keyed(), DAY).await;
    assert_eq!(begun.doubt, None);
    send(&store, &keyed(), &begun.claim, DAY + 5).await;
    drop(begun);
    assert_eq!(doubt(&store, &keyed(), DAY + 1).await, of_this_run(DAY + 5));
}

#[tokio::test]
async fn a_free_key_is_new_and_an_answer_stays_whoever_frees_it() {
    let folder = Folder::new();
    let store = folder.open();
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    let free = end(KeyEnd::Free, JobEnd::Unchanged);
    finish(&store, &keyed(), &begun.claim, &free, 0).await;
    drop(begun);
    let begun = started(&store, &keyed(), 1).await;
    assert_eq!(begun.doubt, None);
    finish(&store, &keyed(), &begun.claim, &with("{}"), 1).await;
    finish(&store, &keyed(), &begun.claim, &free, 1).await;
    drop(begun);
    assert_eq!(answered(&store, &keyed(), 2).await, answer("{}"));
}

#[tokio::test]
async fn an_answer_is_forgotten_after_a_day() {
    let folder = Folder::new();
    let store = folder.open();
    make(&store, &keyed(), with("{}"), 0).await;
    assert_eq!(answered(&store, &keyed(), DAY - 1).await, answer("{}"));
    drop(started(&store, &keyed(), DAY).await);
}

#[tokio::test]
async fn a_clock_that_was_set_between_two_runs_has_no_answer_forgotten() {
    let folder = Folder::new();
    make(&folder.open(), &keyed(), with("{}"), 0).await;
    let store = folder.open();
    drop(started(&store, &under(keyed(), "other"), 2 * DAY).await);
    assert_eq!(answered(&store, &keyed(), 2 * DAY).await, answer("{}"));
}

#[tokio::test]
async fn the_oldest_keys_go_when_others_come() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..6 {
        drop(started(&store, &under(keyed(), &number.to_string()), number).await);
    }
    let rows = || folder.number("SELECT count(*) FROM answers");
    assert_eq!(rows(), 6);
    drop(started(&store, &keyed(), DAY + 100).await);
    assert_eq!(rows(), 6 - 4 + 1);
}

#[tokio::test]
async fn answers_are_sealed_and_bound_to_their_key_and_wallet() {
    let folder = Folder::new();
    let store = folder.open();
    for key in ["key", "other"] {
        make(&store, &under(keyed(), key), with("the-private-instructions"), 0).await;
    }
    assert!(!holds(&folder.bytes(), "the-private-instructions"));
    assert!(!holds(&folder.bytes(), "application/json"));
    let elsewhere = Store::open(&folder.path(), &[key(2)]).unwrap();
    let refused = elsewhere.begin(&keyed(), moment(1)).await.unwrap_err();
    assert!(refused.to_string().contains("sealed for another wallet"), "{refused}");
    folder.tamper(
        "CREATE TEMP TABLE t AS SELECT * FROM answers;
         UPDATE answers SET answer = (SELECT answer FROM t WHERE t.key <> answers.key)",
    );
    let refused = store.begin(&keyed(), moment(1)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::Sealed("answer"));
}

#[tokio::test]
async fn only_who_has_claimed_may_send_or_finish() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let begun = started(&one, &keyed(), 0).await;
    let request_id = &"r".parse().unwrap();
    let operation = &keyed();
    let call = &operation.call;
    let attempt =
        crate::store::Attempt { operation, call, request_id, payload_hash: None, payment: None };
    let refused = other.record_attempt(attempt, &begun.claim, at(SETTLES)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::NotClaimed);
    assert_eq!(Journal::open(&folder.path()).unwrap().verify().unwrap().records, 0);
    let refused = other.finish(operation, &begun.claim, &with("{}"), at(0)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::NotClaimed);
    let free = end(KeyEnd::Free, JobEnd::Unchanged);
    other.finish(operation, &begun.claim, &free, at(0)).await.unwrap();
    let running = other.begin(&keyed(), moment(0)).await.unwrap();
    assert!(matches!(running, Begun::Running), "{running:?}");
}

#[tokio::test]
async fn a_full_disk_leaves_a_call_that_was_sent_in_doubt_and_begins_none() {
    let folder = Folder::new();
    let store = folder.open();
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    limit_growth(&store, 0).await;
    let reservation = reservation("job1", &Client::local(), 1800);
    let large = StoredAnswer { body: "x".repeat(100_000).into(), ..answer("") };
    let ended = end(KeyEnd::Answered(large.clone()), JobEnd::Reserved(reservation));
    let refused = store.finish(&keyed(), &begun.claim, &ended, at(0)).await.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    // It is known to this process meanwhile, and to no other: neither is written without the other.
    assert_eq!(store.reservations(at(0)).await.unwrap().len(), 1);
    assert!(folder.open().reservations(at(0)).await.unwrap().is_empty());
    let mut refused = Ok(());
    while refused.is_ok() {
        refused = sign(&store, &keyed(), 1).await;
    }
    assert!(refused.unwrap_err().is_full());
    // The last pages may have room for some.
    let long = |number: u8| under(keyed(), &number.to_string().repeat(1000));
    let mut refused = Ok(());
    for number in 0..10 {
        refused = refused.and(store.begin(&long(number), moment(0)).await.map(drop));
    }
    assert!(refused.unwrap_err().is_full());
    limit_growth(&store, 1000).await;
    drop(begun);
    let begun = started(&store, &keyed(), 1).await;
    assert_eq!(begun.doubt, of_this_run(SETTLES));
    assert!(store.is_to_be_finished(&ended));
    finish(&store, &keyed(), &begun.claim, &ended, 1).await;
    drop(begun);
    assert_eq!(answered(&store, &keyed(), 2).await, large);
    assert_eq!(folder.open().reservations(at(0)).await.unwrap().len(), 1);
    drop(started(&store, &long(9), 1).await);
}

#[tokio::test]
async fn whose_access_has_ended_begins_nothing_and_all_is_left_as_it_was() {
    let folder = Folder::new();
    let store = folder.open();
    let [agent] = added(&folder, &store, [client("agent")]).await;
    let reserve = under(Operation::of(&agent, "job_reserve", "job1", ""), "key");
    drop(started(&store, &reserve, 0).await);
    let rows = || folder.number("SELECT count(*) FROM answers WHERE answer IS NULL");
    assert_eq!(rows(), 1);
    for end in [
        || "UPDATE clients SET expires = 0",
        || "UPDATE clients SET expires = NULL, revoked = 7",
        || "DELETE FROM clients",
    ] {
        folder.tamper(end());
        assert!(store.begin(&reserve, moment(1)).await.unwrap_err().is_access_ended());
        let other = under(reserve.clone(), "other");
        assert!(store.begin(&other, moment(1)).await.unwrap_err().is_access_ended());
        assert_eq!(rows(), 1);
    }
}

#[tokio::test]
async fn a_client_with_a_new_token_keeps_what_it_had_and_another_of_its_name_has_nothing_of_it() {
    let folder = Folder::new();
    let store = folder.open();
    let [agent] = added(&folder, &store, [client("agent")]).await;
    let reserve = |client: &Client| under(Operation::of(client, "job_reserve", "job1", ""), "key");
    let reserved = JobEnd::Reserved(reservation("job1", &agent, 1800));
    let ended = end(KeyEnd::Answered(answer("{}")), reserved);
    make(&store, &reserve(&agent), ended, 0).await;
    let again = async || {
        folder.clients().revoke(&name("agent"), at(1)).unwrap();
        let credential = folder.add(&client("agent"));
        store.client_by(credential, at(1)).await.unwrap().unwrap()
    };
    let renewed = again().await;
    assert_ne!(renewed.id, agent.id);
    assert_eq!(answered(&store, &reserve(&renewed), 1).await, answer("{}"));
    let complete = Operation::of(&renewed, "job_complete", "job1", "{}");
    drop(started(&store, &complete, 1).await);

    folder.clients().revoke(&name("agent"), at(1)).unwrap();
    folder.clients().remove(&name("agent")).unwrap();
    let [other] = added(&folder, &store, [client("agent")]).await;
    let held = |job: &str| Denied::Holder(job.parse().unwrap());
    assert_eq!(denied(&store, &reserve(&other), 1).await, held("job1"));
    let complete = Operation::of(&other, "job_complete", "job1", "{}");
    assert_eq!(denied(&store, &complete, 1).await, held("job1"));
}

/// A key is text that a client may choose.
#[test]
fn no_key_of_a_client_is_that_of_a_completion() {
    assert!("completion 00".parse::<IdempotencyKey>().is_err());
}

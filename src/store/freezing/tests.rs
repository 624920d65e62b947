use super::*;
use crate::{
    policy::Client,
    store::testing::{Folder, operation, record, sign},
};

/// The freezes that stop a read, a change, and a read of the proxy's own.
async fn stopped(store: &Store) -> [Option<Freeze>; 3] {
    let read = sign(store, &operation(&Client::local(), "job_status", ""), 1).await;
    let freeze = |result: Result<(), StoreError>| result.err().map(|error| error.freeze().cloned());
    let change = record(store, 2).await;
    let checked = store.check_unfrozen(FreezeOf::Signatures).await;
    [read, change, checked].map(|result| freeze(result).map(Option::unwrap))
}

#[tokio::test]
async fn from_a_freeze_on_no_store_that_is_open_records_anything_to_sign() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    for store in &stores {
        assert_eq!(stopped(store).await, [None, None, None]);
    }
    let frozen = freeze(&folder.path(), FreezeOf::Signatures).unwrap();
    for store in &stores {
        assert_eq!(
            stopped(store).await.map(|freeze| freeze.unwrap()),
            [(); 3].map(|()| frozen.clone())
        );
    }
    assert!(thaw(&folder.path()).unwrap());
    assert!(!thaw(&folder.path()).unwrap());
    for store in &stores {
        assert_eq!(stopped(store).await, [None, None, None]);
    }
}

#[tokio::test]
async fn a_freeze_of_payments_stops_no_call_and_the_first_freeze_of_its_kind_stays() {
    let folder = Folder::new();
    let store = folder.open();
    let payments = store.freeze(FreezeOf::Payments, "ops").await.unwrap();
    assert_eq!((payments.of, &*payments.by), (FreezeOf::Payments, "ops"));
    assert_eq!(stopped(&store).await, [None, None, None]);
    assert_eq!(store.frozen().await.unwrap(), Some(payments.clone()));
    let of_payments = |db: &Db| freeze_rows::check(db, FreezeOf::Payments);
    assert!(store.write(of_payments).await.is_err());
    assert_eq!(store.freeze(FreezeOf::Payments, "other").await.unwrap(), payments);
    let all = store.freeze(FreezeOf::Signatures, "other").await.unwrap();
    assert_eq!(store.frozen().await.unwrap().as_ref(), Some(&all));
    assert_eq!(store.freeze(FreezeOf::Payments, "third").await.unwrap(), all, "it stops more");
    assert!(store.thaw("ops").await.unwrap());
    assert_eq!(store.frozen().await.unwrap(), None);
    store.write(of_payments).await.unwrap();
}

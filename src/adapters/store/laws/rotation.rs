//! Other keys in the place of those that there are: whole or not at all, and every process follows.

use super::*;
use crate::{
    broker::ports::SealedRecords as _,
    kernel::{name::SecretName, sealing},
};

fn filling() -> Random {
    Arc::new(random)
}

fn told<T>() -> Telling<T> {
    // Not of the ledger's key: what such an entry must say is the verifier's matter.
    Arc::new(|_: &T| Some(entry(EntryCode::Started)))
}

fn ring(newest: u8, previous: Option<u8>) -> Keyring {
    Keyring::new(key(newest), previous.map(key))
}

fn with(bench: &Bench, keys: Keyring) -> Result<Arc<Database>, String> {
    open_with(&bench.place, keys, Options::default())
}

/// A broker of that store, which serves it.
fn serving(bench: &Bench, keys: Keyring) -> Arc<Database> {
    open_with(&bench.place, keys, Options { single_writer_lock: true, ..Options::default() }).unwrap()
}

fn beat(of: u8, seen: Timestamp) -> Beat {
    Beat { replica: ReplicaId::from_bytes([of; 16]), started: now(), digest: None, now: seen }
}

/// Whether the secret that a process holds in memory opens.
fn opens(store: &Database, ring: &Keyring) -> bool {
    let found = store.sealed(&SecretName::parse("npm-token").unwrap()).1.unwrap();
    let of = sealing::Sealed { purpose: sealing::PURPOSE_SECRET, name: "npm-token", version: found.version };
    ring.open(of, &found.record).is_ok()
}

async fn append(store: &Database) -> Receipt {
    store.append(vec![entry(EntryCode::Stopped)]).await.unwrap().remove(0)
}

async fn every_process_signs_with_the_new_ledger_key_from_its_next_turn_on(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    append(&other).await;
    let old = bench.store.verifier_key();
    let rotated = bench.store.rotate_ledger_key(now(), filling(), told()).await.unwrap();
    assert_eq!(rotated.index, Some(1));
    let receipt = append(&other).await;
    assert_eq!(other.verifier_key(), rotated.told);
    assert_proves(&other, &receipt);
    assert!(old != rotated.told && old.open(&other.checkpoint().await.unwrap()).is_err());
    // Twice, by the one that did not do it before.
    let again = other.rotate_ledger_key(now(), filling(), told()).await.unwrap();
    assert_proves(&bench.store, &append(&bench.store).await);
    assert_eq!(bench.store.verifier_key(), again.told);
    let bench = bench.reopened().await;
    assert_eq!(bench.store.verifier_key(), again.told);
    assert_eq!(bench.codes().len(), 5);
}

async fn the_head_at_the_change_opens_with_both_keys(on: Engine) {
    let bench = Bench::on(on);
    let old = bench.store.verifier_key();
    let new = bench.store.rotate_ledger_key(now(), filling(), told()).await.unwrap().told;
    let note = bench.store.checkpoint().await.unwrap();
    assert_eq!(old.open(&note), new.open(&note));
    // A note of before the change is known as well.
    assert_eq!(bench.store.open_checkpoint(&note).await.unwrap(), old.open(&note));
    append(&bench.store).await;
    assert_eq!(bench.store.open_checkpoint(&note).await.unwrap(), old.open(&note));
    assert_eq!(bench.store.head_fault().await.unwrap(), None);
}

async fn a_change_that_cannot_be_recorded_leaves_the_key_that_there_was(on: Engine) {
    let bench = Bench::on(on);
    let old = bench.store.verifier_key();
    bench.fill_up("entry");
    assert!(bench.store.rotate_ledger_key(now(), filling(), told()).await.is_err());
    bench.make_room("entry");
    until_well(&bench.store).await;
    let none = Arc::new(|_: &Handover| None);
    let untold = bench.store.rotate_ledger_key(now(), filling(), none).await;
    assert!(matches!(untold, Err(RotationFault::Entry)), "{untold:?}");
    let bench = bench.reopened().await;
    assert_eq!(bench.store.verifier_key(), old);
    assert_proves(&bench.store, &append(&bench.store).await);
}

async fn keys_are_listed_with_those_of_the_ledger_before(on: Engine) {
    let bench = Bench::on(on);
    let old = bench.store.verifier_key();
    let new = bench.store.rotate_ledger_key(later(60), filling(), told()).await.unwrap().told;
    let held = bench.store.held_keys().await.unwrap();
    let ledger: Vec<&HeldKey> = held.iter().filter(|held| held.purpose == "ledger").collect();
    let shown: Vec<_> =
        ledger.iter().map(|held| (held.version, held.verifier.clone(), held.retired_at)).collect();
    assert_eq!(shown, [(1, Some(old), Some(later(60))), (2, Some(new), None)]);
    assert_eq!((ledger[0].made_at, ledger[1].made_at), (now(), later(60)));
    let others: Vec<&str> = held.iter().map(|held| held.purpose.as_str()).collect();
    assert_eq!(others, ["assertion", "assertion-es256-1", "ledger", "ledger", "pseudonym"]);
}

async fn everything_opens_with_the_new_sealing_key_after_the_change_and_with_both_during_it(on: Engine) {
    let bench = Bench::on(on);
    super::secrets::set(&bench.store, "npm-token", "one").await;
    bench.store.close().await;
    let changing = with(&bench, ring(2, Some(1))).unwrap();
    // Sealed with the key that all else is sealed with, not with one that others may not know yet.
    super::secrets::set(&changing, "npm-token", "two").await;
    assert!(opens(&changing, &ring(1, None)));
    let done = changing.rewrap(filling(), told()).await.unwrap();
    assert_eq!((done.told, done.index.is_some()), (5, true));
    assert_eq!(changing.sealed_with().await.unwrap(), key(2).check());
    append(&changing).await;
    assert!(opens(&changing, &ring(2, None)) && !opens(&changing, &ring(1, None)));
    super::secrets::set(&changing, "npm-token", "three").await;
    assert!(opens(&changing, &ring(2, None)));
    let again = changing.rewrap(filling(), told()).await.unwrap();
    assert_eq!((again.told, again.index), (0, None));
    changing.close().await;
    assert!(with(&bench, ring(1, None)).err().unwrap().contains("sealing key is not the one"));
    let after = with(&bench, ring(2, None)).unwrap();
    assert!(opens(&after, &ring(2, None)));
    append(&after).await;
    // Keys that come later are the new one's, too.
    after.rotate_ledger_key(now(), filling(), told()).await.unwrap();
    after.close().await;
    append(&with(&bench, ring(2, None)).unwrap()).await;
}

async fn a_change_of_sealing_keys_that_is_cut_short_is_gone_on_with(on: Engine) {
    let bench = Bench::on(on);
    super::secrets::set(&bench.store, "npm-token", "one").await;
    bench.execute(
        "CREATE TRIGGER stuck BEFORE UPDATE ON secret BEGIN SELECT RAISE(ABORT, 'no room'); END",
        "ALTER TABLE secret ADD CONSTRAINT stuck CHECK (false) NOT VALID",
    );
    let changing = with(&bench, ring(2, Some(1))).unwrap();
    assert!(changing.rewrap(filling(), told()).await.is_err());
    bench.execute("DROP TRIGGER stuck", "ALTER TABLE secret DROP CONSTRAINT stuck");
    until_well(&changing).await;
    changing.close().await;
    // Nothing says that the new key is the store's, and whoever knows both opens all that there is.
    let changing = with(&bench, ring(2, Some(1))).unwrap();
    assert_eq!(changing.sealed_with().await.unwrap(), key(1).check());
    assert!(opens(&changing, &ring(1, None)));
    assert_eq!(changing.assertion_keys().await.unwrap().len(), 2);
    let done = changing.rewrap(filling(), told()).await.unwrap();
    assert_eq!((done.told, bench.codes().len()), (5, 2));
    changing.close().await;
    append(&with(&bench, ring(2, None)).unwrap()).await;
}

async fn nothing_is_wrapped_that_a_serving_broker_could_not_open(on: Engine) {
    let bench = Bench::on(on);
    let broker = serving(&bench, ring(1, None));
    broker.announce(beat(3, now()), &ring(1, None)).await.unwrap();
    let changing = with(&bench, ring(2, Some(1))).unwrap();
    let refused = changing.rewrap(filling(), told()).await;
    assert!(matches!(refused, Err(RotationFault::NotServed)), "{refused:?}");
    broker.announce(beat(3, now()), &ring(2, Some(1))).await.unwrap();
    assert!(changing.rewrap(filling(), told()).await.is_ok());
}

laws!(
    a_change_of_sealing_keys_that_is_cut_short_is_gone_on_with,
    a_change_that_cannot_be_recorded_leaves_the_key_that_there_was,
    every_process_signs_with_the_new_ledger_key_from_its_next_turn_on,
    everything_opens_with_the_new_sealing_key_after_the_change_and_with_both_during_it,
    keys_are_listed_with_those_of_the_ledger_before,
    nothing_is_wrapped_that_a_serving_broker_could_not_open,
    the_head_at_the_change_opens_with_both_keys,
);

/// Brokers on one server that know different keys.
mod on_postgres_only {
    use super::*;

    #[tokio::test]
    async fn every_living_broker_must_know_the_new_key_and_one_that_died_is_not_waited_for() {
        let bench = Bench::on(Engine::Postgres);
        let (knowing, behind) = (serving(&bench, ring(2, Some(1))), serving(&bench, ring(1, None)));
        knowing.announce(beat(3, now()), &ring(2, Some(1))).await.unwrap();
        behind.announce(beat(4, now()), &ring(1, None)).await.unwrap();
        let refused = knowing.rewrap(filling(), told()).await;
        assert!(matches!(refused, Err(RotationFault::NotServed)), "{refused:?}");
        assert!(with(&bench, ring(1, None)).is_ok(), "nothing was begun");
        bench.execute("", "UPDATE replica SET seen = 0 WHERE id = '\\x04040404040404040404040404040404'");
        knowing.rewrap(filling(), told()).await.unwrap();
        // Awake again, it may not say that it serves this store.
        assert!(behind.announce(beat(4, now()), &ring(1, None)).await.is_err());
    }

    #[tokio::test]
    async fn a_broker_of_the_schema_before_is_not_left_behind() {
        let bench = Bench::on(Engine::Postgres);
        bench.execute(
            "",
            "INSERT INTO replica (id, started, digest, seen) VALUES ('\\x05', 0, NULL, 9000000000000000000)",
        );
        let changing = with(&bench, ring(2, Some(1))).unwrap();
        let refused = changing.rewrap(filling(), told()).await;
        assert!(matches!(refused, Err(RotationFault::NotServed)), "{refused:?}");
    }

    #[tokio::test]
    async fn two_who_wrap_at_once_are_told_of_one_change() {
        let bench = Bench::on(Engine::Postgres);
        for number in 0..40 {
            super::super::secrets::set(&bench.store, &format!("other-{number}"), "one").await;
        }
        let entries = bench.codes().len();
        let (one, two) = (with(&bench, ring(2, Some(1))).unwrap(), with(&bench, ring(2, Some(1))).unwrap());
        let (first, second) = tokio::join!(one.rewrap(filling(), told()), two.rewrap(filling(), told()));
        let told = [first.unwrap(), second.unwrap()];
        assert_eq!(told.iter().filter(|told| told.index.is_some()).count(), 1, "{told:?}");
        assert_eq!(bench.codes().len(), entries + 1);
        for store in [one, two] {
            store.close().await;
        }
        append(&with(&bench, ring(2, None)).unwrap()).await;
    }

    #[tokio::test]
    async fn keys_that_come_while_records_are_wrapped_are_wrapped_too() {
        let bench = Bench::on(Engine::Postgres);
        for number in 0..40 {
            super::super::secrets::set(&bench.store, &format!("other-{number}"), "one").await;
        }
        let (one, two) = (with(&bench, ring(2, Some(1))).unwrap(), with(&bench, ring(2, Some(1))).unwrap());
        let others = async {
            for number in 0..10 {
                super::super::secrets::set(&two, &format!("other-{number}"), "two").await;
                two.rotate_ledger_key(now(), filling(), told()).await.unwrap();
            }
        };
        let (wrapped, ()) = tokio::join!(one.rewrap(filling(), told()), others);
        assert!(wrapped.unwrap().index.is_some());
        for store in [one, two] {
            store.close().await;
        }
        let after = with(&bench, ring(2, None)).unwrap();
        let again = after.rewrap(filling(), told()).await.unwrap();
        assert_eq!((again.told, again.index), (0, None));
        assert_proves(&after, &append(&after).await);
    }

    #[tokio::test]
    async fn half_wrapped_store_is_opened_by_nobody_who_knows_one_key_only() {
        let bench = Bench::on(Engine::Postgres);
        super::super::secrets::set(&bench.store, "npm-token", "one").await;
        bench.execute("", "ALTER TABLE secret ADD CONSTRAINT stuck CHECK (false) NOT VALID");
        let changing = with(&bench, ring(2, Some(1))).unwrap();
        assert!(changing.rewrap(filling(), told()).await.is_err());
        bench.execute("", "ALTER TABLE secret DROP CONSTRAINT stuck");
        for one in [1, 2] {
            let refused = with(&bench, ring(one, None)).err().unwrap();
            let expected = if one == 1 { "name both in `sealing_key`" } else { "sealing key is not the one" };
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(bench.store.announce(beat(3, now()), &ring(1, None)).await.is_err());
        // Who thinks better of it goes back the same way.
        until_well(&changing).await;
        changing.close().await;
        let back = with(&bench, ring(1, Some(2))).unwrap();
        back.rewrap(filling(), told()).await.unwrap();
        back.close().await;
        append(&with(&bench, ring(1, None)).unwrap()).await;
    }

    #[tokio::test]
    async fn the_database_takes_no_head_that_only_the_old_key_signed() {
        let bench = Bench::on(Engine::Postgres);
        append(&bench.store).await;
        let old = bench.store.checkpoint().await.unwrap();
        bench.store.rotate_ledger_key(now(), filling(), told()).await.unwrap();
        append(&bench.store).await;
        let forged = format!("UPDATE hallpass.head SET note = '{old}'");
        let refused = server().try_psql_as(WRITER, &bench.name, &forged).unwrap_err();
        assert!(refused.contains("head_is_signed_by_the_ledgers_key"), "{refused}");
        append(&bench.store).await;
    }

    #[tokio::test]
    async fn a_broker_that_cannot_open_the_new_ledger_key_signs_nothing_more() {
        let bench = Bench::on(Engine::Postgres);
        let other = bench.other();
        append(&other).await;
        bench.store.rotate_ledger_key(now(), filling(), told()).await.unwrap();
        bench.execute(
            "",
            "UPDATE keys SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE purpose = 'ledger'",
        );
        assert!(other.append(vec![entry(EntryCode::Stopped)]).await.is_err());
        assert_eq!(bench.codes().len(), 2);
    }
}

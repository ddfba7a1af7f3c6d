//! Logs that nobody touched: nothing is found on any of them, however they grew, and also where personal values were
//! erased as a whole.

use std::io::Cursor;

use hallpass::{
    broker::audit,
    kernel::ledger::{
        export::Export,
        verify::{Evidence, Key, Verdict},
    },
};
use rusqlite::Connection;

use crate::log::{Log, block};

#[test]
fn nothing_is_found_on_a_thousand_clean_logs() {
    let mut verified = 0;
    for seed in 0..50 {
        let mut log = Log::new(seed);
        let raw = Connection::open(log.path()).unwrap();
        for state in 0..20 {
            let calls = 1 + log.stream.below(2);
            log.append(calls);
            if state % 3 == 2 {
                // What erasure is: the row goes, with the bytes that blind it.
                let index = i64::try_from(log.stream.below(usize::try_from(log.size).unwrap())).unwrap();
                raw.execute("DELETE FROM personal WHERE idx = ?1 AND ordinal > 0", [index]).unwrap();
            }
            let key = log.store.verifier_key();
            let report = block(audit::of_store(&*log.store, Some(key.clone()), log.anchors())).unwrap();
            assert_eq!(
                (&report.verdict, report.size),
                (&Verdict::Anchored, log.size),
                "log {seed}: {report:?}"
            );
            assert_eq!((report.first_bad, report.first_bad_among), (None, None));
            verified += 1;
            if state == 19 {
                let (lines, manifest, checkpoint) = export(&log);
                let evidence = Evidence {
                    key: Key::Elsewhere(key),
                    checkpoint,
                    manifest: Some(manifest),
                    anchors: log.anchors(),
                };
                let report = audit::of_lines(evidence, &mut Cursor::new(lines)).unwrap();
                assert_eq!(report.verdict, Verdict::Anchored, "export {seed}: {report:?}");
            }
        }
    }
    assert_eq!(verified, 1_000);
}

/// Lines, manifest and checkpoint of an export.
pub(crate) fn export(log: &Log) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let note = log.notes.last().unwrap();
    let mut export = Export::begin(note).unwrap();
    let rows = block(log.store.ledger_rows(0, 1_000)).unwrap();
    let lines = rows.iter().flat_map(|row| export.line(&row.bytes).unwrap()).collect();
    (lines, export.finish().unwrap(), note.clone().into_bytes())
}

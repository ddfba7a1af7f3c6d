//! Single changes to databases, by somebody who opens the file with other tools, takes the triggers away and puts them
//! back.

use std::path::Path;

use hallpass::{
    adapters::store::Sqlite,
    kernel::{
        digest::Digest,
        ledger::{
            checkpoint::LogKey,
            entry::{Draft, Entry, EntryCode},
            tree::{Frontier, leaf_hash},
            verify::{Anchor, Verdict},
        },
        secret::Secret,
    },
};
use rusqlite::{Connection, ToSql, params};

use crate::{
    Change, Stream,
    log::{Closed, Log, ORIGIN, stolen_key},
    seeds,
};

/// One that is small, and one with full subtrees.
pub(crate) struct Specimens {
    pub(crate) small: Closed,
    large: Closed,
    forged: Entry,
}

#[test]
fn every_single_change_to_a_database_is_found_and_the_first_bad_entry_is_named() {
    let specimens = Specimens::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hallpass.db");
    for log in [&specimens.small, &specimens.large] {
        std::fs::write(&path, &log.database).unwrap();
        assert_eq!(log.verify(&path, log.anchors.clone()).verdict, Verdict::Anchored);
    }
    for seed in seeds(60) {
        let (log, change, anchors) = specimens.spoil(seed, &path);
        change.assert_found(seed, &log.verify(&path, anchors));
    }
}

impl Specimens {
    pub(crate) fn new() -> Self {
        let mut log = Log::new(5);
        (0..10).for_each(|_| log.append(2));
        let forged = log.seal(Draft::of(EntryCode::Started), "2027-01-13T10:00:01Z".parse().unwrap());
        let mut large = Log::new(6);
        (0..40).for_each(|_| large.append(10));
        assert!(large.size > 512);
        Self { small: log.close(), large: large.close(), forged }
    }

    /// Puts a database there with one change; answers the log that it was, the change, and what is held from elsewhere.
    pub(crate) fn spoil(&self, seed: u64, path: &Path) -> (&Closed, Change, Vec<Anchor>) {
        let mut stream = Stream::new(seed);
        let kind = stream.below(40);
        let log = if kind == 0 { &self.large } else { &self.small };
        std::fs::write(path, &log.database).unwrap();
        let mut anchors = log.anchors.clone();
        let change = if kind == 39 {
            let anchor = stream.below(anchors.len());
            stream.flip(&mut anchors[anchor].bytes);
            Change::beside("an anchor")
        } else {
            let conn = Connection::open(path).unwrap();
            conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
            let triggers = take_triggers(&conn);
            let mut hand = Hand { conn: &conn, stream, log, forged: &self.forged };
            let change = hand.change(kind);
            conn.execute_batch(&triggers).unwrap();
            change
        };
        (log, change, anchors)
    }
}

/// Takes the triggers that stop accidents; answers how to put them back.
fn take_triggers(conn: &Connection) -> String {
    let mut rows = conn.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").unwrap();
    let found: Vec<(String, String)> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (name, _) in &found {
        conn.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    found.into_iter().map(|(_, sql)| sql + ";\n").collect()
}

/// Whoever changes the file.
struct Hand<'a> {
    conn: &'a Connection,
    stream: Stream,
    log: &'a Closed,
    forged: &'a Entry,
}

impl Hand<'_> {
    fn change(&mut self, kind: usize) -> Change {
        let index = self.below(self.log.size);
        match kind {
            0 => self.subtree(),
            1..=6 => self.bytes(index),
            7..=9 => self.leaf(index),
            10..=17 => self.column(index),
            18..=24 => self.personal(),
            25..=28 => self.rows(index),
            29..=33 => self.head(),
            34..=35 => self.signed_anew(index),
            36 => self.rolled_back(index),
            37 => self.facts(),
            _ => self.fork(index),
        }
    }

    /// An index below a size, as SQL has it.
    fn below(&mut self, size: u64) -> i64 {
        i64::try_from(self.stream.below(usize::try_from(size).unwrap())).unwrap()
    }

    fn size(&self) -> i64 {
        i64::try_from(self.log.size).unwrap()
    }

    fn run(&self, sql: &str, values: &[&dyn ToSql]) {
        assert!(self.conn.execute(sql, values).unwrap() > 0, "nothing changed: {sql}");
    }

    fn blob(&self, sql: &str, index: i64) -> Vec<u8> {
        self.conn.query_row(sql, [index], |row| row.get(0)).unwrap()
    }

    /// The same with a bit flipped, cut, or with something behind it.
    fn spoilt(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self.stream.below(8) {
            0 => bytes.truncate(self.stream.below(bytes.len())),
            1 => bytes.push(b' '),
            _ => self.stream.flip(&mut bytes),
        }
        bytes
    }

    fn bytes(&mut self, index: i64) -> Change {
        let bytes = self.blob("SELECT bytes FROM entry WHERE idx = ?1", index);
        let bytes = self.spoilt(bytes);
        self.run("UPDATE entry SET bytes = ?2 WHERE idx = ?1", &[&index, &bytes]);
        Change::at("bytes of an entry", index)
    }

    fn leaf(&mut self, index: i64) -> Change {
        let leaf = self.blob("SELECT leaf FROM entry WHERE idx = ?1", index);
        let leaf = self.spoilt(leaf);
        self.run("UPDATE entry SET leaf = ?2 WHERE idx = ?1", &[&index, &leaf]);
        Change::at("a leaf hash", index)
    }

    fn column(&mut self, index: i64) -> Change {
        let (column, values) = [
            ("code", "'DRY_RUN'|'issued'|''|CAST(X'ff' AS TEXT)"),
            ("at", "at + 1|at - 1000000|0|-at"),
            ("decision", "X'00'|zeroblob(16)|X''"),
            ("issuance", "X'00'|zeroblob(16)|X''"),
            ("issuer", "'gitlab'|''|'Github'|CAST(X'ff' AS TEXT)"),
            ("grants", "'[\"payments\"]'|'[]'|''|'payments-prod'"),
        ][self.stream.below(6)];
        let values: Vec<&str> = values.split('|').collect();
        let value = values[self.stream.below(values.len())];
        self.run(&format!("UPDATE entry SET {column} = {value} WHERE idx = ?1"), &[&index]);
        Change::at(format!("column {column} = {value}"), index)
    }

    fn personal(&mut self) -> Change {
        let mut rows = self.conn.prepare("SELECT idx, ordinal FROM personal ORDER BY idx, ordinal").unwrap();
        let rows: Vec<(i64, i64)> =
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
        let (index, ordinal) = rows[self.stream.below(rows.len())];
        let kind = self.stream.below(9);
        let set = |what: &str, value: &str| {
            let sql = format!("UPDATE personal SET {value} WHERE idx = ?1 AND ordinal = ?2");
            self.run(&sql, &[&index, &ordinal]);
            Change::at(format!("a personal value: {what}"), index)
        };
        match kind {
            0 => set("value", "value = value || ' '"),
            1 => set("value", "value = 'mallory'"),
            2 => set("value", "value = CAST(X'ff' AS TEXT)"),
            3 => set("field", "field = field || '2'"),
            4 => set("blinding", "blinding = zeroblob(32)"),
            5 => set("blinding half erased", "blinding = X''"),
            6 => {
                let copy = "INSERT INTO personal SELECT idx, 900, field, blinding, value FROM personal
                            WHERE idx = ?1 AND ordinal = ?2";
                self.run(copy, &[&index, &ordinal]);
                Change::at("a personal value kept twice", index)
            }
            7 => {
                let moved = "UPDATE personal SET idx = ?3, ordinal = 900 WHERE idx = ?1 AND ordinal = ?2";
                let (last, _) = rows[rows.len() - 1];
                let (first, _) = rows[0];
                let to = if index == last { first } else { last };
                self.run(moved, &[&index, &ordinal, &to]);
                Change::at("a personal value moved to another entry", to)
            }
            _ => {
                let copy = "INSERT INTO personal SELECT ?3, ordinal, field, blinding, value FROM personal
                            WHERE idx = ?1 AND ordinal = ?2";
                let behind = self.size() + 3;
                self.run(copy, &[&index, &ordinal, &behind]);
                Change::at("a personal value of no entry", self.log.size)
            }
        }
    }

    /// Whole rows: each fits itself, so that only the tree can tell.
    fn rows(&mut self, index: i64) -> Change {
        let size = self.size();
        match self.stream.below(5) {
            0 => {
                self.run("DELETE FROM entry WHERE idx = ?1", &[&index]);
                if index + 1 == size {
                    Change::within("the last row deleted", index)
                } else {
                    Change::at("a row deleted", index)
                }
            }
            1 => {
                let other = (index + 1 + self.below(self.log.size - 1)) % size;
                for (table, from, to) in [
                    ("entry", index, 900_000),
                    ("entry", other, index),
                    ("entry", 900_000, other),
                    ("personal", index, 900_000),
                    ("personal", other, index),
                    ("personal", 900_000, other),
                ] {
                    self.conn
                        .execute(&format!("UPDATE {table} SET idx = ?2 WHERE idx = ?1"), [from, to])
                        .unwrap();
                }
                Change::within("two rows swapped with all that is theirs", index.min(other))
            }
            2 => {
                self.run("DELETE FROM entry WHERE idx = ?1", &[&index]);
                self.conn.execute("DELETE FROM personal WHERE idx = ?1", [index]).unwrap();
                for later in index + 1..size {
                    for table in ["entry", "personal"] {
                        let sql = format!("UPDATE {table} SET idx = ?1 - 1 WHERE idx = ?1");
                        self.conn.execute(&sql, [later]).unwrap();
                    }
                }
                Change::within("a row deleted and the later ones moved up", index)
            }
            3 => {
                let copy =
                    "INSERT INTO entry SELECT ?2, leaf, code, at, decision, issuance, issuer, grants, bytes
                            FROM entry WHERE idx = ?1";
                let (to, first) = if self.stream.below(2) == 0 { (-1, 0) } else { (size, size) };
                self.run(copy, &[&index, &to]);
                Change::at(format!("a row more, at {to}"), first)
            }
            _ => {
                self.replace(index);
                Change::within("a row replaced by one that never was", index)
            }
        }
    }

    fn replace(&self, index: i64) {
        let sql =
            "UPDATE entry SET leaf = ?2, code = ?3, at = ?4, decision = NULL, issuance = NULL, issuer = NULL,
                   grants = NULL, bytes = ?5 WHERE idx = ?1";
        let at = i64::try_from(self.forged.at.as_nanosecond()).unwrap();
        let values: [&dyn ToSql; 5] =
            [&index, &self.forged.leaf.0, &self.forged.code.as_str(), &at, &self.forged.bytes];
        self.run(sql, &values);
        self.conn.execute("DELETE FROM personal WHERE idx = ?1", [index]).unwrap();
    }

    fn head(&mut self) -> Change {
        let note: String = self.conn.query_row("SELECT note FROM head", [], |row| row.get(0)).unwrap();
        let column = ["root", "peaks"][self.stream.below(2)];
        match self.stream.below(8) {
            0 | 1 => {
                let bytes = self.conn.query_row(&format!("SELECT {column} FROM head"), [], |row| row.get(0));
                let bytes = self.spoilt(bytes.unwrap());
                self.run(&format!("UPDATE head SET {column} = ?1"), &[&bytes]);
                Change::beside(format!("the head's {column}"))
            }
            2 => {
                let by = [-1, 1, -1_000_000][self.stream.below(3)];
                self.run("UPDATE head SET size = size + ?1", &[&by]);
                Change::beside("the head's size")
            }
            3..=5 => {
                let note = self.spoilt(note.into_bytes());
                self.run("UPDATE head SET note = CAST(?1 AS TEXT)", &[&note]);
                Change::beside("the head's note")
            }
            6 => {
                self.run("DELETE FROM head", &[]);
                Change::beside("no head")
            }
            _ => {
                let old = &self.log.notes[self.stream.below(self.log.notes.len() - 1)];
                self.run("UPDATE head SET note = ?1", &[old]);
                Change::beside("an old note")
            }
        }
    }

    /// Signs a head for other entries than are there, with the ledger's key or another.
    fn signed_anew(&mut self, index: i64) -> Change {
        let root = Digest::of(&index.to_be_bytes());
        let (key, root, what) = if self.stream.below(2) == 0 {
            (stolen_key(self.conn), root, "signed with the ledger's key for another root")
        } else {
            let (_, root) = self.tree();
            (LogKey::from_seed(ORIGIN, &Secret::new(vec![9; 32])).unwrap(), root, "signed with another key")
        };
        self.run("UPDATE head SET note = ?1", &[&key.sign(self.log.size, &root)]);
        Change::beside(what)
    }

    fn tree(&self) -> (Frontier, Digest) {
        let mut rows = self.conn.prepare("SELECT bytes FROM entry ORDER BY idx").unwrap();
        let leaves: Vec<Digest> = rows
            .query_map([], |row| row.get::<_, Vec<u8>>(0))
            .unwrap()
            .map(|bytes| leaf_hash(&bytes.unwrap()))
            .collect();
        let appended = Frontier::default().append(&leaves);
        (appended.frontier, appended.root)
    }

    /// Writes and signs the head of what is there now, with the ledger's own key.
    fn sign_what_is_there(&self) {
        let (frontier, root) = self.tree();
        let peaks: Vec<u8> = frontier.peaks().iter().flat_map(|peak| peak.0).collect();
        let note = stolen_key(self.conn).sign(frontier.size(), &root);
        let sql = "UPDATE head SET size = ?1, root = ?2, peaks = ?3, note = ?4";
        self.conn
            .execute(sql, params![i64::try_from(frontier.size()).unwrap(), root.0, peaks, note])
            .unwrap();
    }

    /// An old state, whole: what somebody gets who puts yesterday's file back.
    fn rolled_back(&self, index: i64) -> Change {
        self.conn.execute("DELETE FROM entry WHERE idx >= ?1", [index]).unwrap();
        self.conn.execute("DELETE FROM personal WHERE idx >= ?1", [index]).unwrap();
        self.sign_what_is_there();
        Change::at("put back to an old state", index)
    }

    /// Another history, whole, signed with the ledger's key.
    fn fork(&self, index: i64) -> Change {
        self.replace(index);
        self.sign_what_is_there();
        Change::within("a fork signed with the ledger's key", index)
    }

    fn facts(&mut self) -> Change {
        let other = LogKey::from_seed(ORIGIN, &Secret::new(vec![9; 32])).unwrap().verifier().to_string();
        let (name, value) =
            [("origin", "other.test/ledger"), ("ledger_key", other.as_str())][self.stream.below(2)];
        self.run("UPDATE meta SET value = CAST(?2 AS BLOB) WHERE name = ?1", &[&name, &value]);
        Change::beside(format!("what the database says of its {name}"))
    }

    fn subtree(&mut self) -> Change {
        let at = self.below(2);
        let hash = self.blob("SELECT hash FROM subtree WHERE level = 8 AND idx = ?1", at);
        match self.stream.below(4) {
            0 => {
                self.run("DELETE FROM subtree WHERE level = 8 AND idx = ?1", &[&at]);
                Change::at("a subtree deleted", at * 256)
            }
            1 => {
                self.run("INSERT INTO subtree VALUES (8, 2, ?1)", &[&hash]);
                Change::at("a subtree that is not full", 512)
            }
            _ => {
                let hash = self.spoilt(hash);
                self.run("UPDATE subtree SET hash = ?2 WHERE level = 8 AND idx = ?1", &[&at, &hash]);
                Change::at("a subtree's hash", at * 256)
            }
        }
    }
}

#[test]
fn a_database_that_lost_its_head_is_broken_and_not_unreadable() {
    let specimens = Specimens::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hallpass.db");
    std::fs::write(&path, &specimens.small.database).unwrap();
    Connection::open(&path).unwrap().execute("DELETE FROM head", []).unwrap();
    assert!(Sqlite::inspect(&path).is_ok());
    let report = specimens.small.verify(&path, Vec::new());
    assert_eq!(report.verdict.exit_code(), 30, "{report:?}");
}

//! What auditors ask: entries, proofs, the newest checkpoint. Reading is itself recorded: once a query, and once a
//! reader and hour for single entries and proofs.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::json;

use super::{
    Broker,
    error::{Code, Refused},
    ports::{EntryQuery, Qualifier, StoredEntry, Term},
};
use crate::kernel::{
    digest::Digest,
    id::crockford,
    ledger::{
        entry::{Draft, EntryCode, Personal},
        tiles::Tile,
    },
};

/// Who reads: the name of a token, or `os:UID`.
pub struct Reader {
    /// The name.
    pub name: String,
}

/// A query as it was sent.
#[derive(Default)]
pub struct Search {
    /// Terms: `repo:` `actor:` `grant:` `outcome:` `issuer:` `ref:` `env:` `run:` `reason:`, `-` negates, or free
    /// text; quotes keep spaces together.
    pub q: Option<String>,
    /// RFC 3339, inclusive.
    pub from: Option<String>,
    /// RFC 3339, exclusive.
    pub to: Option<String>,
    /// A cursor of an earlier page.
    pub cursor: Option<String>,
    /// 1 to 500; 50 where absent.
    pub limit: Option<String>,
}

/// One page, newest first.
pub struct SearchPage {
    /// The entries.
    pub items: Vec<StoredEntry>,
    /// Where the next page starts; `None` where this is the last.
    pub next_cursor: Option<String>,
}

/// Single reads of this hour: reader to (hour, count).
#[derive(Default)]
pub(super) struct Reads(Mutex<HashMap<String, (i64, u64)>>);

/// The most terms of one query; each is a condition in the database.
const MAX_TERMS: usize = 16;
/// The longest query in bytes.
const MAX_QUERY_BYTES: usize = 1024;
const NO_CURSOR: &str = "`cursor` is not one that an earlier page of this query gave";

impl Broker {
    /// Searches the ledger.
    ///
    /// # Errors
    ///
    /// `request_malformed` with what is wrong; `ledger_unavailable`.
    pub async fn search(&self, reader: &Reader, search: Search) -> Result<SearchPage, Refused> {
        let mut query = parse(&search)?;
        // Later pages are not recorded again, so a cursor has to prove that there was a first one.
        let own = query.below.map(|below| self.cursor(reader, &search, below));
        if search.cursor.as_deref().map(text_digest) != own.as_deref().map(text_digest) {
            return Err(malformed(NO_CURSOR));
        }
        if search.cursor.is_none() {
            let text = search.q.clone().unwrap_or_default();
            self.note_read(
                reader,
                json!({ "what": "query", "from": search.from, "to": search.to }),
                Some(text),
            )
            .await?;
        }
        let limit = query.limit;
        query.limit = limit + 1;
        let mut items = self.store.entries(query).await?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = items.last().filter(|_| more).map(|last| self.cursor(reader, &search, last.index));
        Ok(SearchPage { items, next_cursor })
    }

    /// Where the next page begins, bound by the store's key to who reads and to what was asked: one that anybody
    /// could write would let an auditor read the whole ledger without a READ.
    fn cursor(&self, reader: &Reader, search: &Search, below: u64) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let (q, from, to) = (text(&search.q), text(&search.from), text(&search.to));
        let asked = Digest::of_parts(&[
            b"cursor",
            reader.name.as_bytes(),
            q.as_bytes(),
            from.as_bytes(),
            to.as_bytes(),
            &below.to_be_bytes(),
        ]);
        let tag = Digest::keyed(&self.settings.pseudonym_key, &asked.0);
        format!("i{below}.{}", crockford(&tag.0))
    }

    /// One entry.
    ///
    /// # Errors
    ///
    /// `not_found`; `ledger_unavailable`.
    pub async fn ledger_entry(&self, reader: &Reader, index: u64) -> Result<StoredEntry, Refused> {
        self.count_read(reader).await?;
        self.store.entry(index).await?.ok_or_else(no_entry)
    }

    /// The proof that an entry stands in the newest checkpoint's ledger.
    ///
    /// # Errors
    ///
    /// `not_found`; `ledger_unavailable`.
    pub async fn ledger_proof(&self, reader: &Reader, index: u64) -> Result<String, Refused> {
        self.count_read(reader).await?;
        self.store.proof(index).await?.ok_or_else(no_entry)
    }

    /// A tile of the ledger (C2SP tlog-tiles).
    ///
    /// # Errors
    ///
    /// `not_found`; `ledger_unavailable`.
    pub async fn ledger_tile(&self, reader: &Reader, tile: Tile) -> Result<Vec<u8>, Refused> {
        self.count_read(reader).await?;
        self.store.tile(tile).await?.ok_or_else(no_entry)
    }

    /// The newest signed checkpoint.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn checkpoint(&self) -> Result<String, Refused> {
        Ok(self.store.checkpoint().await?)
    }

    /// Records the counts of hours that are over.
    pub(super) async fn close_reads(&self) -> Result<(), Refused> {
        let hour = hour_of(self.ambient.clock.now());
        let over: Vec<(String, i64, u64)> = {
            let reads = self.reads.0.lock().unwrap_or_else(PoisonError::into_inner);
            let over = reads.iter().filter(|(_, (at, _))| *at < hour);
            over.map(|(name, (at, count))| (name.clone(), *at, *count)).collect()
        };
        for (name, at, count) in over {
            self.note_count(&Reader { name: name.clone() }, count).await?;
            // Only now: a count that could not be recorded stays for the next turn.
            let mut reads = self.reads.0.lock().unwrap_or_else(PoisonError::into_inner);
            if reads.get(&name).is_some_and(|(since, _)| *since == at) {
                reads.remove(&name);
            }
        }
        Ok(())
    }

    /// The first read of an hour has its own entry, so that one alone needs no count.
    async fn note_count(&self, reader: &Reader, count: u64) -> Result<(), Refused> {
        if count < 2 {
            return Ok(());
        }
        self.note_read(reader, json!({ "what": "entries", "count": count }), None).await
    }

    async fn count_read(&self, reader: &Reader) -> Result<(), Refused> {
        let hour = hour_of(self.ambient.clock.now());
        let (is_first, before) = {
            let mut reads = self.reads.0.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = reads.entry(reader.name.clone()).or_insert((hour, 0));
            let before = if slot.0 < hour { std::mem::replace(slot, (hour, 0)).1 } else { 0 };
            slot.1 = slot.1.saturating_add(1);
            (slot.1 == 1, before)
        };
        if !is_first {
            return Ok(());
        }
        let noted = async {
            self.note_count(reader, before).await?;
            self.note_read(reader, json!({ "what": "entries" }), None).await
        };
        let noted = noted.await;
        if noted.is_err() {
            // What could not be recorded is not read, and the next try must be recorded again.
            self.reads.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&reader.name);
        }
        noted
    }

    async fn note_read(
        &self,
        reader: &Reader,
        mut result: serde_json::Value,
        query: Option<String>,
    ) -> Result<(), Refused> {
        if let serde_json::Value::Object(members) = &mut result {
            members.insert("reader".to_owned(), reader.name.clone().into());
        }
        let personal = query.map(|value| Personal { field: "query", value });
        let draft = Draft {
            code: Some(EntryCode::Read),
            result: Some(result),
            personal: personal.into_iter().collect(),
            ..Draft::default()
        };
        self.store.append(vec![self.seal(&draft)?]).await?;
        Ok(())
    }
}

/// Compared in place of a text that must not be guessed letter by letter.
fn text_digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn no_entry() -> Refused {
    Refused::new(Code::NotFound, "the ledger has no entry of that index")
}

fn hour_of(now: Timestamp) -> i64 {
    now.as_second().div_euclid(3_600)
}

fn malformed(detail: impl Into<String>) -> Refused {
    Refused::new(Code::RequestMalformed, detail)
}

fn parse(search: &Search) -> Result<EntryQuery, Refused> {
    let time = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => text.parse::<Timestamp>().map(Some).map_err(|_| {
            malformed(format!("`{name}` is not an RFC 3339 time, such as 2027-01-13T10:00:00Z"))
        }),
    };
    let below = match &search.cursor {
        None => None,
        Some(text) => Some(
            text.strip_prefix('i')
                .and_then(|rest| rest.split_once('.'))
                .filter(|(digits, _)| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|(digits, _)| digits.parse().ok())
                .ok_or_else(|| malformed(NO_CURSOR))?,
        ),
    };
    let limit = match &search.limit {
        None => 50,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=500).contains(limit))
            .ok_or_else(|| malformed("`limit` is not a number from 1 to 500"))?,
    };
    let terms = terms(search.q.as_deref().unwrap_or_default())?;
    Ok(EntryQuery { terms, from: time("from", &search.from)?, to: time("to", &search.to)?, below, limit })
}

fn terms(query: &str) -> Result<Vec<Term>, Refused> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(malformed("`q` has more than 1024 bytes"));
    }
    let words = words(query)?;
    if words.len() > MAX_TERMS {
        return Err(malformed("`q` has more than 16 terms"));
    }
    words.into_iter().map(|word| term(&word)).collect()
}

/// One word of a query: its text, and where in it a quoted part begins, if any does.
struct Word {
    text: String,
    quoted_from: Option<usize>,
}

fn words(query: &str) -> Result<Vec<Word>, Refused> {
    let mut words = Vec::new();
    let mut word = Word { text: String::new(), quoted_from: None };
    let mut in_quotes = false;
    for letter in query.chars() {
        match letter {
            '"' => {
                in_quotes = !in_quotes;
                word.quoted_from.get_or_insert(word.text.len());
            }
            letter if letter.is_whitespace() && !in_quotes => {
                if !word.text.is_empty() {
                    words.push(std::mem::replace(&mut word, Word { text: String::new(), quoted_from: None }));
                }
            }
            letter => word.text.push(letter),
        }
    }
    if in_quotes {
        return Err(malformed("`q` has a quote that is not closed"));
    }
    if !word.text.is_empty() {
        words.push(word);
    }
    Ok(words)
}

fn term(word: &Word) -> Result<Term, Refused> {
    let (negated, text) = match word.text.strip_prefix('-') {
        Some(rest) if word.quoted_from != Some(0) && !rest.is_empty() => (true, rest),
        Some(_) | None => (false, word.text.as_str()),
    };
    let plain = |value: &str| Ok(Term { qualifier: Qualifier::Text, value: value.to_owned(), negated });
    let quoted_from = word.quoted_from.map(|at| at.saturating_sub(usize::from(negated)));
    match text.split_once(':') {
        // A colon inside quotes is text.
        Some((name, _)) if quoted_from.is_some_and(|at| at <= name.len()) => plain(text),
        None => plain(text),
        Some((_, "")) => Err(malformed("`q` has a qualifier without a value")),
        Some((name, value)) => {
            let qualifier =
                QUALIFIERS.iter().find(|(word, _)| *word == name).map(|(_, qualifier)| *qualifier);
            let qualifier = qualifier.ok_or_else(|| {
                malformed("`q` has an unknown qualifier; known are repo, actor, grant, outcome, issuer, ref, env, run, reason; put quotes around text with a colon")
            })?;
            Ok(Term { qualifier, value: value.to_owned(), negated })
        }
    }
}

const QUALIFIERS: [(&str, Qualifier); 9] = [
    ("actor", Qualifier::Actor),
    ("env", Qualifier::Env),
    ("grant", Qualifier::Grant),
    ("issuer", Qualifier::Issuer),
    ("outcome", Qualifier::Outcome),
    ("reason", Qualifier::Reason),
    ("ref", Qualifier::Ref),
    ("repo", Qualifier::Repo),
    ("run", Qualifier::Run),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_qualifiers_negation_quotes_and_text() {
        let parsed =
            terms(r#"repo:acme/payments -outcome:DENIED "two words" env:"blue green" -plain "a:b""#).unwrap();
        let shown: Vec<String> = parsed
            .iter()
            .map(|term| format!("{}{:?}={}", if term.negated { "-" } else { "" }, term.qualifier, term.value))
            .collect();
        assert_eq!(
            shown,
            [
                "Repo=acme/payments",
                "-Outcome=DENIED",
                "Text=two words",
                "Env=blue green",
                "-Text=plain",
                "Text=a:b"
            ]
        );
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for bad in ["color:red", "repo:", "\"open"] {
            assert_eq!(terms(bad).unwrap_err().code, Code::RequestMalformed, "{bad}");
        }
        let bad = [
            Search { cursor: Some("12".into()), ..Search::default() },
            Search { from: Some("yesterday".into()), ..Search::default() },
            Search { limit: Some("0".into()), ..Search::default() },
            Search { limit: Some("501".into()), ..Search::default() },
        ];
        for search in bad {
            assert_eq!(parse(&search).unwrap_err().code, Code::RequestMalformed);
        }
    }
}

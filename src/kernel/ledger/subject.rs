//! `subject` of an entry: who asked. One token leads to several entries, and what they say of it differs only in the
//! commitments to personal claims; so the rest is written once, in canonical JSON (RFC 8785), with gaps for those.

use serde_json::{Map, Value};

use crate::kernel::{
    digest::Digest,
    json::{JsonFault, append_canonical, append_text},
};

/// A subject, ready for any number of entries.
#[derive(Clone)]
pub struct Subject {
    issuer: Option<String>,
    /// The claims' members before the first commitment, between two of them and behind the last. None where a claim
    /// cannot be written: every entry goes without claims then.
    claims: Option<Vec<Vec<u8>>>,
    /// The other members, each behind a comma.
    others: Vec<u8>,
    personal: Vec<(String, String)>,
}

impl Subject {
    /// A subject of these members, in any order and none of them called `claims` or `claims_cut`, and of these claims.
    ///
    /// # Errors
    ///
    /// [`JsonFault`] where a member that is no claim cannot be written.
    pub fn new(
        members: &mut [(&str, Value)],
        claims: &Map<String, Value>,
        is_personal: impl Fn(&str) -> bool,
    ) -> Result<Self, JsonFault> {
        members.sort_unstable_by_key(|(name, _)| *name);
        let issuer = members.iter().find(|(name, _)| *name == "issuer");
        let issuer = issuer.and_then(|(_, value)| value.as_str()).map(str::to_owned);
        let mut others = Vec::with_capacity(OTHERS_ROOM);
        for (name, value) in members.iter() {
            others.push(b',');
            append_member(&mut others, name, value)?;
        }
        let mut sorted: Vec<(&String, &Value)> = claims.iter().collect();
        // RFC 8785 section 3.2.3; for ASCII it is the order that they have already.
        if !claims.keys().all(|name| name.is_ascii()) {
            sorted.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
        }
        let mut personal = Vec::new();
        let mut pieces = Some(vec![Vec::with_capacity(sorted.len().saturating_mul(CLAIM_ROOM))]);
        for (number, (name, value)) in sorted.into_iter().enumerate() {
            let shown = if is_personal(name) {
                personal.push((name.clone(), text_of(value)));
                None
            } else {
                Some(value)
            };
            pieces = pieces.and_then(|pieces| with_claim(pieces, number > 0, (name, shown)));
        }
        Ok(Self { issuer, claims: pieces, others, personal })
    }

    /// The issuer's name.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The personal claims, name and value, in the order of their commitments.
    pub fn personal(&self) -> &[(String, String)] {
        &self.personal
    }

    /// Whether its claims can be written.
    pub fn has_claims(&self) -> bool {
        self.claims.is_some()
    }

    /// Writes it with a commitment for each personal claim.
    pub fn append(&self, out: &mut Vec<u8>, commitments: &[Digest]) {
        let Some(pieces) = &self.claims else { return self.append_slim(out, commitments) };
        out.extend_from_slice(br#"{"claims":{"#);
        let mut commitments = commitments.iter();
        for piece in pieces {
            out.extend_from_slice(piece);
            // Behind the last piece there is no gap, and no commitment is left.
            if let Some(digest) = commitments.next() {
                append_commitment(out, digest);
            }
        }
        out.push(b'}');
        out.extend_from_slice(&self.others);
        out.push(b'}');
    }

    /// The same without the claims, but for the commitments to the personal ones.
    pub fn append_slim(&self, out: &mut Vec<u8>, commitments: &[Digest]) {
        out.push(b'{');
        if !self.personal.is_empty() {
            out.extend_from_slice(br#""claims":{"#);
            for (number, ((name, _), digest)) in self.personal.iter().zip(commitments).enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                append_text(out, name);
                out.push(b':');
                append_commitment(out, digest);
            }
            out.extend_from_slice(b"},");
        }
        out.extend_from_slice(br#""claims_cut":true"#);
        out.extend_from_slice(&self.others);
        out.push(b'}');
    }
}

/// Adds a claim, or the gap for one that is not shown; none where it cannot be written.
fn with_claim(
    mut pieces: Vec<Vec<u8>>,
    is_next: bool,
    (name, shown): (&str, Option<&Value>),
) -> Option<Vec<Vec<u8>>> {
    let piece = pieces.last_mut()?;
    if is_next {
        piece.push(b',');
    }
    match shown {
        Some(value) => append_member(piece, name, value).ok()?,
        None => {
            append_text(piece, name);
            piece.push(b':');
            pieces.push(Vec::with_capacity(PIECE_ROOM));
        }
    }
    Some(pieces)
}

/// A personal claim as the erasable table keeps it: a string as it is, anything else as JSON.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn append_member(out: &mut Vec<u8>, name: &str, value: &Value) -> Result<(), JsonFault> {
    append_text(out, name);
    out.push(b':');
    append_canonical(out, value)
}

/// `{"commitment":"…"}`.
pub(super) fn append_commitment(out: &mut Vec<u8>, digest: &Digest) {
    out.extend_from_slice(br#"{"commitment":""#);
    out.extend_from_slice(&digest.hex());
    out.extend_from_slice(br#""}"#);
}

/// What most subjects need, so that their buffers do not grow.
const OTHERS_ROOM: usize = 512;
const CLAIM_ROOM: usize = 64;
const PIECE_ROOM: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::kernel::json::{read_bounded, write_canonical};

    fn written(subject: &Subject, slim: bool) -> String {
        let digests: Vec<Digest> = (0_u8..).take(subject.personal().len()).map(|n| Digest([n; 32])).collect();
        let mut out = Vec::new();
        if slim {
            subject.append_slim(&mut out, &digests)
        } else {
            subject.append(&mut out, &digests)
        }
        String::from_utf8(out).unwrap()
    }

    fn subject(claims: &Value, personal: &[&str]) -> Subject {
        let mut members = [("profile", "github-actions".into()), ("issuer", "github".into())];
        Subject::new(&mut members, claims.as_object().unwrap(), |name| personal.contains(&name)).unwrap()
    }

    #[test]
    fn commitments_stand_in_the_place_of_personal_claims() {
        let claims = json!({ "b": 2, "actor": "octocat", "ref": "main", "z": { "login": 1 } });
        let subject = subject(&claims, &["actor", "z"]);
        let [zero, one] = [[0; 32], [1; 32]].map(|bytes| Digest(bytes).to_string());
        assert_eq!(
            written(&subject, false),
            format!(
                r#"{{"claims":{{"actor":{{"commitment":"{zero}"}},"b":2,"ref":"main","z":{{"commitment":"{one}"}}}},"issuer":"github","profile":"github-actions"}}"#
            ),
        );
        assert_eq!(
            written(&subject, true),
            format!(
                r#"{{"claims":{{"actor":{{"commitment":"{zero}"}},"z":{{"commitment":"{one}"}}}},"claims_cut":true,"issuer":"github","profile":"github-actions"}}"#
            ),
        );
        assert_eq!(subject.personal()[0], ("actor".to_owned(), "octocat".to_owned()));
        assert_eq!(subject.personal()[1].1, r#"{"login":1}"#);
        assert_eq!(subject.issuer(), Some("github"));
    }

    #[test]
    fn claim_that_cannot_be_written_leaves_all_out() {
        let subject = subject(&json!({ "n": 1_u64 << 53, "ref": "main" }), &[]);
        assert!(!subject.has_claims());
        assert_eq!(written(&subject, false), written(&subject, true));
        assert_eq!(
            written(&subject, false),
            r#"{"claims_cut":true,"issuer":"github","profile":"github-actions"}"#
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_canonical(
            claims in prop::collection::btree_map(".{0,6}", prop_oneof![
                any::<String>().prop_map(Value::from), any::<i32>().prop_map(Value::from),
                (-1e15..1e15).prop_map(|number: f64| json!([number])), any::<bool>().prop_map(Value::from),
            ], 0..8),
            every in 1_usize..4,
        ) {
            let claims: Map<String, Value> = claims.into_iter().collect();
            let names: Vec<String> = claims.keys().step_by(every).cloned().collect();
            let of = Subject::new(&mut [], &claims, |name| names.iter().any(|own| own == name)).unwrap();
            for slim in [false, true] {
                let text = written(&of, slim);
                let value = read_bounded(text.as_bytes()).unwrap();
                prop_assert_eq!(write_canonical(&value).unwrap(), text.into_bytes());
            }
        }
    }
}

//! What a step asks for: grants, and how they are narrowed.

use serde_json::{Map, Value, json};

/// The grants of one exchange.
#[derive(Debug, clap::Args)]
pub(super) struct Ask {
    /// The grants; all of them or nothing.
    #[arg(value_name = "GRANT", required = true, num_args = 1..)]
    pub(super) grants: Vec<String>,
    /// Only this credential, of each grant named; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(super) credential: Vec<String>,
    /// Why, for the audit record; at most 256 characters.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

impl Ask {
    /// The body of `POST /v1/exchange`.
    pub(super) fn body(&self) -> Value {
        let grants: Vec<Value> = self.grants.iter().map(|name| self.grant(name)).collect();
        let mut body = Map::new();
        body.insert("grants".to_owned(), grants.into());
        if let Some(reason) = &self.reason {
            body.insert("reason".to_owned(), reason.as_str().into());
        }
        body.into()
    }

    fn grant(&self, name: &str) -> Value {
        let mut grant = json!({ "name": name });
        if let (Value::Object(members), false) = (&mut grant, self.credential.is_empty()) {
            members.insert("credentials".to_owned(), self.credential.clone().into());
        }
        grant
    }
}

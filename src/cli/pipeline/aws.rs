//! The fields that make a credential one for AWS, whoever made it, and the names that AWS's tools know.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{exchanged::Issuance, names::AWS};
use crate::kernel::secret::Secret;

/// An access key as a credential's fields hold it.
pub(super) struct AccessKey<'a> {
    /// The id; it is no secret.
    pub(super) id: &'a Secret,
    /// The secret key.
    pub(super) secret: &'a Secret,
    /// The session's token, of temporary keys.
    pub(super) session: Option<&'a Secret>,
}

impl<'a> AccessKey<'a> {
    /// The access key of a credential that is one.
    pub(super) fn of(issuance: &'a Issuance) -> Option<Self> {
        let [id, secret, session] = AWS.map(|(_, names)| {
            let mut fields = issuance.fields.iter();
            fields.find(|field| names.contains(&field.name.as_str())).map(|field| &field.value)
        });
        // A token that is there but empty stands for none.
        Some(Self { id: id?, secret: secret?, session: session.filter(|token| !token.is_empty()) })
    }

    /// A JSON object under the names of `credential_process` and of the container endpoint, which differ in one; `None`
    /// where a part is no text.
    /// Source: AWS SDKs and Tools Reference Guide, "Process credential provider" and "Container credential provider".
    pub(super) fn document(&self, session_name: &str) -> Option<Map<String, Value>> {
        let mut document = Map::new();
        document.insert("AccessKeyId".to_owned(), self.id.expose_text()?.into());
        document.insert("SecretAccessKey".to_owned(), self.secret.expose_text()?.into());
        if let Some(session) = self.session {
            document.insert(session_name.to_owned(), session.expose_text()?.into());
        }
        Some(document)
    }
}

/// A moment as AWS's SDKs read it: whole seconds, since some read no fraction.
pub(super) fn time(moment: Timestamp) -> String {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

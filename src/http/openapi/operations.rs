//! Every operation of both listeners, by listener and path.

use super::{
    Answer, Content,
    Listener::{self, Admin, Public},
    Operation, Parameter, Right,
};
use crate::{broker::error::Code, http::roles::Role};

/// Every one.
pub(in crate::http) static OPERATIONS: &[Operation] = &[
    Operation {
        id: "exchange",
        summary: "Trades a CI token for the credentials of grants",
        right: Right::Job,
        parameters: &[IDEMPOTENCY_KEY],
        body: Some(json("ExchangeRequest")),
        answers: &[ok("the credentials, or what a dry run would issue", json("ExchangeAnswer"))],
        codes: EXCHANGE,
        ..at(&[Public], "POST", "/v1/exchange")
    },
    Operation {
        id: "token",
        summary: "Trades a CI token for one credential, as OAuth clients ask (RFC 8693)",
        right: Right::JobInBody,
        parameters: &[IDEMPOTENCY_KEY],
        body: Some(Content { media_type: "application/x-www-form-urlencoded", schema: "TokenRequest" }),
        answers: &[ok("the credential's one secret", json("TokenAnswer"))],
        codes: EXCHANGE,
        in_oauth: true,
        ..at(&[Public], "POST", crate::http::token::PATH)
    },
    Operation {
        id: "showIssuance",
        summary: "Tells what became of an issuance",
        right: Right::Holder,
        parameters: &[ISSUANCE_ID],
        answers: &[ok("its state", json("Issuance"))],
        codes: &[Code::AccessDenied, Code::NotFound, Code::LedgerUnavailable],
        ..at(&[Public], "GET", "/v1/issuances/{id}")
    },
    Operation {
        id: "giveBackIssuance",
        summary: "Gives an issuance back; asking again is no fault",
        right: Right::Holder,
        parameters: &[ISSUANCE_ID],
        answers: &[
            ok("nobody can revoke it; it stays usable as long as it says", json("Released")),
            Answer { status: 202, means: "its revocation is queued", content: None },
            Answer { status: 204, means: "nothing usable remains", content: None },
        ],
        codes: &[Code::NotFound, Code::LedgerUnavailable],
        ..at(&[Public], "DELETE", "/v1/issuances/{id}")
    },
    Operation {
        id: "revokeJob",
        summary: "Ends all that the caller's job was issued; never frozen",
        right: Right::Job,
        body: Some(json("JobScope")),
        answers: &[ok("what is ended, queued, and what nobody can revoke", json("Revocation"))],
        codes: &[Code::UnsupportedMediaType, Code::LedgerUnavailable],
        ..at(&[Public], "POST", "/v1/revocations")
    },
    Operation {
        id: "whoami",
        summary: "Shows what the caller's token says, as policy sees it",
        right: Right::Job,
        answers: &[ok("the job", json("Job"))],
        codes: FREEZABLE,
        ..at(&[Public], "GET", "/v1/whoami")
    },
    Operation {
        id: "listGrants",
        summary: "Lists the grants that the caller's token may use now",
        right: Right::Job,
        answers: &[ok("them, and no other", json("Grants"))],
        codes: FREEZABLE,
        ..at(&[Public], "GET", "/v1/grants")
    },
    Operation {
        id: "openapi",
        summary: "This document",
        answers: &[ok("OpenAPI 3.1", json("Document"))],
        ..at(&[Public], "GET", "/v1/openapi.json")
    },
    Operation {
        id: "openidConfiguration",
        summary: "Hallpass as an OIDC issuer (OpenID Connect Discovery 1.0); 404 where its issuer has another URL",
        is_keepable: true,
        answers: &[ok("the discovery document", json("Document"))],
        codes: &[Code::NotFound],
        ..at(&[Public], "GET", "/.well-known/openid-configuration")
    },
    Operation {
        id: "jwks",
        summary: "The keys that Hallpass signs its assertions with (RFC 7517)",
        is_keepable: true,
        answers: &[ok("the public keys", json("KeySet"))],
        ..at(&[Public], "GET", "/.well-known/jwks.json")
    },
    Operation {
        id: "live",
        summary: "Whether the process answers; depends on nothing",
        gated: false,
        answers: &[ok("it does", json("Live"))],
        ..at(&[Public, Admin], "GET", "/livez")
    },
    Operation {
        id: "liveHead",
        summary: "The same without a body",
        gated: false,
        answers: &[Answer { status: 200, means: "it does", content: None }],
        ..at(&[Public, Admin], "HEAD", "/livez")
    },
    Operation {
        id: "ready",
        summary: "Whether the broker can serve, by part",
        gated: false,
        answers: &[ok("it can", json("Ready"))],
        codes: &[Code::NotReady],
        ..at(&[Admin], "GET", "/readyz")
    },
    Operation {
        id: "readyHead",
        summary: "The same without a body",
        gated: false,
        answers: &[Answer { status: 200, means: "it can", content: None }],
        codes: &[Code::NotReady],
        ..at(&[Admin], "HEAD", "/readyz")
    },
    Operation {
        id: "metrics",
        summary: "Figures for Prometheus",
        gated: false,
        answers: &[ok("text format 0.0.4", text())],
        ..at(&[Admin], "GET", "/metrics")
    },
    Operation {
        id: "listFreezes",
        summary: "Lists the freezes that stand, oldest first",
        right: Right::Role(Role::Operator),
        answers: &[ok("them", json("Freezes"))],
        codes: &[Code::LedgerUnavailable],
        ..at(&[Admin], "GET", "/v1/freezes")
    },
    Operation {
        id: "freeze",
        summary: "Stops an issuer, a key, a grant, a project or all, on every broker at once",
        right: Right::Role(Role::Operator),
        body: Some(json("FreezeRequest")),
        answers: &[
            ok("it was frozen already, as it says", json("ImposedFreeze")),
            Answer { status: 201, means: "it is frozen", content: Some(json("ImposedFreeze")) },
        ],
        codes: &[Code::UnsupportedMediaType, Code::LedgerUnavailable],
        ..at(&[Admin], "POST", "/v1/freezes")
    },
    Operation {
        id: "thaw",
        summary: "Ends a freeze",
        right: Right::Role(Role::Operator),
        body: Some(json("FreezeRequest")),
        answers: &[Answer { status: 204, means: "it is frozen no more", content: None }],
        codes: &[Code::UnsupportedMediaType, Code::LedgerUnavailable, Code::NotFound],
        ..at(&[Admin], "POST", "/v1/thaws")
    },
    Operation {
        id: "revoke",
        summary: "Ends issuances by grant, project and time; what is given must all hold",
        right: Right::Role(Role::Operator),
        body: Some(json("RevokeRequest")),
        answers: &[ok("what is, or by a dry run would be, ended", json("Revocation"))],
        codes: &[Code::UnsupportedMediaType, Code::LedgerUnavailable],
        ..at(&[Admin], "POST", "/v1/admin/revocations")
    },
    Operation {
        id: "searchLedger",
        summary: "Searches the ledger, newest first",
        right: Right::Role(Role::Auditor),
        parameters: &[
            query(
                "q",
                "qualifiers `repo: actor: grant: outcome: issuer: ref: env: run: reason:`, `-` negates, free text",
                "Query",
            ),
            query("from", "not before", "Time"),
            query("to", "before", "Time"),
            query("cursor", "`next_cursor` of the page before", "Cursor"),
            query("limit", "items of a page", "Limit"),
        ],
        answers: &[ok("a page", json("EntryPage"))],
        codes: &[Code::LedgerUnavailable],
        ..at(&[Admin], "GET", "/v1/ledger/entries")
    },
    Operation {
        id: "showEntry",
        summary: "Shows one entry",
        right: Right::Role(Role::Auditor),
        parameters: &[INDEX],
        answers: &[ok("the entry", json("Entry"))],
        codes: &[Code::LedgerUnavailable, Code::NotFound],
        ..at(&[Admin], "GET", "/v1/ledger/entries/{index}")
    },
    Operation {
        id: "proveEntry",
        summary: "Proves that the ledger holds an entry (C2SP tlog-proof)",
        right: Right::Role(Role::Auditor),
        parameters: &[INDEX],
        answers: &[ok("the proof", text())],
        codes: &[Code::LedgerUnavailable, Code::NotFound],
        ..at(&[Admin], "GET", "/v1/ledger/entries/{index}/proof")
    },
    Operation {
        id: "checkpoint",
        summary: "The ledger's signed head (C2SP tlog-checkpoint)",
        right: Right::Role(Role::Viewer),
        answers: &[ok("the checkpoint", text())],
        codes: &[Code::LedgerUnavailable],
        ..at(&[Admin], "GET", "/v1/ledger/checkpoint")
    },
    Operation {
        id: "publishedCheckpoint",
        summary: "The same where readers of C2SP tlog-tiles look for it",
        right: Right::Role(Role::Viewer),
        answers: &[ok("the checkpoint", text())],
        codes: &[Code::LedgerUnavailable],
        ..at(&[Admin], "GET", "/ledger/checkpoint")
    },
    Operation {
        id: "tile",
        summary: "A tile of hashes or entries (C2SP tlog-tiles)",
        right: Right::Role(Role::Auditor),
        parameters: &[TILE],
        answers: &[ok("the tile", Content { media_type: "application/octet-stream", schema: "Bytes" })],
        codes: &[Code::LedgerUnavailable, Code::NotFound],
        ..at(&[Admin], "GET", "/ledger/tile/{*place}")
    },
];

/// An operation behind the gate that needs no token and takes nothing.
const fn at(listeners: &'static [Listener], method: &'static str, path: &'static str) -> Operation {
    Operation {
        listeners,
        method,
        path,
        id: "",
        summary: "",
        right: Right::Nobody,
        gated: true,
        is_keepable: false,
        parameters: &[],
        body: None,
        answers: &[],
        codes: &[],
        in_oauth: false,
    }
}

const fn ok(means: &'static str, content: Content) -> Answer {
    Answer { status: 200, means, content: Some(content) }
}

const fn json(schema: &'static str) -> Content {
    Content { media_type: "application/json", schema }
}

const fn text() -> Content {
    Content { media_type: "text/plain", schema: "Text" }
}

const fn query(name: &'static str, means: &'static str, schema: &'static str) -> Parameter {
    Parameter { name, place: "query", means, schema }
}

const IDEMPOTENCY_KEY: Parameter = Parameter {
    name: "Idempotency-Key",
    place: "header",
    means: "makes a retry of the same call one and the same",
    schema: "IdempotencyKey",
};
const ISSUANCE_ID: Parameter =
    Parameter { name: "id", place: "path", means: "the issuance", schema: "IssuanceId" };
const TILE: Parameter = Parameter {
    name: "place",
    place: "path",
    means: "the tile's place, such as 0/000 or entries/x001/067.p/8",
    schema: "TilePlace",
};
const INDEX: Parameter =
    Parameter { name: "index", place: "path", means: "the entry's index, from 0", schema: "Index" };

/// What a freeze brings to those that show a token its means.
const FREEZABLE: &[Code] = &[Code::AccessDenied, Code::LedgerUnavailable];

/// What an exchange can be refused for once its token holds.
const EXCHANGE: &[Code] = &[
    Code::UnsupportedMediaType,
    Code::AccessDenied,
    Code::TtlOutOfRange,
    Code::InputInvalid,
    Code::IdempotencyMismatch,
    Code::RequestInProgress,
    Code::TokenReplayed,
    Code::QuotaExceeded,
    Code::LedgerUnavailable,
    Code::BackendFailed,
    Code::BackendTimeout,
];

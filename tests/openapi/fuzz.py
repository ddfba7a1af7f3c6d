"""Hooks for schemathesis: gives each request a token that holds, and some of them names that exist.

Every token is good once, so each request takes the next one of a file. What schemathesis spoils on purpose stays
spoilt: only requests that it means to be good are helped along.
"""

import json
import os
import threading

import schemathesis

GIVEN = json.load(open(os.environ["HALLPASS_FUZZ"]))
JOBS = iter(GIVEN["jobs"])
KNOWN = set(GIVEN["jobs"])
LOCK = threading.Lock()
COUNT = {}
OPERATORS = ["/v1/freezes", "/v1/thaws", "/v1/admin/revocations"]


def fresh():
    with LOCK:
        # The last one is asked for again and again once the others are used up, which is an answer to be tried too.
        GIVEN["last"] = next(JOBS, GIVEN.get("last", "none-left"))
        return GIVEN["last"]


@schemathesis.auth(refresh_interval=None)
class Tokens:
    def get(self, case, context):
        if case.operation.path == "/v1/token":
            return None
        if case.operation.path in OPERATORS:
            return GIVEN["operator"]
        return GIVEN["auditor"] if "/ledger/" in case.operation.path else fresh()

    def set(self, case, data, context):
        if data is None:
            return
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"


def holds(case):
    """Whether the token was not spoilt."""
    return (case.headers or {}).get("Authorization", "").removeprefix("Bearer ") in KNOWN


@schemathesis.hook
def before_call(context, case, kwargs):
    """Every second request to a route is helped along to where something is found or issued."""
    path = case.operation.path
    with LOCK:
        COUNT[path] = COUNT.get(path, 0) + 1
        helped = COUNT[path] % 2 == 0
    if path == "/v1/token" and isinstance(case.body, dict) and "subject_token" in case.body:
        case.body["subject_token"] = fresh()
        if helped:
            case.body["audience"] = "deploy"
            case.body["scope"] = "npm"
    elif path == "/v1/exchange" and helped and isinstance(case.body, dict) and "grants" in case.body:
        case.body["grants"] = [{"name": "deploy", "credentials": ["npm"]}]
    elif path.startswith("/v1/issuances/") and helped and holds(case):
        case.path_parameters["id"] = GIVEN["issuance"]["id"]
        case.headers["Authorization"] = f"Bearer {GIVEN['issuance']['handle']}"
    elif path in ("/v1/freezes", "/v1/thaws") and helped and isinstance(case.body, dict) and "scope" in case.body:
        case.body.update({"scope": "grant", "name": "deploy"})
    elif path.startswith("/v1/ledger/entries/") and helped:
        case.path_parameters["index"] = 1

"""A token exchange (RFC 8693) by PyPI `authlib`: a line of JSON in, a line of JSON out, until stdin ends."""
import json
import os
import sys

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

# It refuses plain http otherwise; the broker of the test listens on loopback.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

for line in sys.stdin:
    asked = json.loads(line)
    session = OAuth2Session(client_id="a-job", token_endpoint_auth_method="none")
    session.trust_env = False
    try:
        token = session.fetch_token(
            asked["url"],
            grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
            **asked["parameters"],
        )
        answer = {"token": dict(token)}
    except OAuthError as fault:
        answer = {"error": fault.error, "description": fault.description}
    print(json.dumps(answer), flush=True)

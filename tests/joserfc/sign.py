"""A CI system whose tokens are signed by a JOSE library that is not ours (PyPI joserfc, over OpenSSL).

It speaks as tests/jose/sign.mjs does: keys by discovery on loopback, a line with its URL, then a token for each line.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

MAKE = {
    "RS256": lambda: RSAKey.generate_key(2048),
    "PS256": lambda: RSAKey.generate_key(2048),
    "ES256": lambda: ECKey.generate_key("P-256"),
    "ES384": lambda: ECKey.generate_key("P-384"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
}
OWN = {alg: make() for alg, make in MAKE.items()}
STRANGERS = {alg: make() for alg, make in MAKE.items()}
KEYS = [{**key.as_dict(private=False), "kid": alg, "alg": alg, "use": "sig"} for alg, key in OWN.items()]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        documents = {
            "/.well-known/openid-configuration": {"issuer": url, "jwks_uri": f"{url}/keys"},
            "/keys": {"keys": KEYS},
        }
        document = documents.get(self.path)
        self.send_response(404 if document is None else 200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
url = f"http://127.0.0.1:{server.server_address[1]}"
threading.Thread(target=server.serve_forever, daemon=True).start()


def sign(alg, claims, header=None, kid=None, stranger=False):
    protected = {"alg": alg, "kid": kid or alg, **(header or {})}
    # What the library does not know it refuses to sign, unless the registry lets any member through.
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    registry.check_header = lambda *_: None
    key = (STRANGERS if stranger else OWN)[alg]
    return jws.serialize_compact(protected, json.dumps(claims), key, registry=registry)


print(json.dumps({"url": url, "library": "joserfc"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"token": sign(**json.loads(line))}), flush=True)

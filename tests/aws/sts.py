"""An STS-shaped endpoint that is strict: a request counts only with a Signature Version 4 that it works out by itself.

Standard library only, by AWS's documentation ("Create a signed AWS API request"), so that nothing of what signs also
checks. It prints a line with its URL; then, for each line of JSON on stdin, does what it says and prints a line:

    {"accept": {"id": …, "secret": …, "session": … or null}}    from now on, beside the others
    {"refuse": id}                                              no longer
    {"assumed": true}                                           the forms by which roles were assumed so far
    {"calls": true}                                             ids of keys that signed well so far, and refusals
"""

import hashlib
import hmac
import json
import sys
import threading
import urllib.parse
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

accepted: dict = {}
signed: list = []
refused: list = []
assumed: list = []


def digest(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def fault(handler, body: bytes):
    """Why the signature does not hold, or None."""
    scheme, _, rest = handler.headers.get("Authorization", "").partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        return "not signed"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    key_id, day, region, service, end = parts["Credential"].split("/")
    key = accepted.get(key_id)
    if key is None:
        return f"no such key: {key_id}"
    if (service, end) != ("sts", "aws4_request"):
        return "another scope"
    if handler.headers.get("X-Amz-Security-Token") != key["session"]:
        return "another session token"
    names = parts["SignedHeaders"].split(";")
    if "host" not in names or (key["session"] and "x-amz-security-token" not in names):
        return "a header is not signed"
    moment = handler.headers["X-Amz-Date"]
    now = datetime.now(timezone.utc)
    at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    if abs(now - at) > timedelta(minutes=5) or moment[:8] != day:
        return "another time"
    path, _, query = handler.path.partition("?")
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    quoted = "&".join(f"{urllib.parse.quote(k, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for k, v in pairs)
    headers = "".join(f"{name}:{' '.join(handler.headers[name].split())}\n" for name in names)
    canonical = "\n".join(
        [handler.command, path, quoted, headers, ";".join(names), hashlib.sha256(body).hexdigest()]
    )
    scope = f"{day}/{region}/{service}/{end}"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = ("AWS4" + key["secret"]).encode()
    for part in (day, region, service, end):
        signing = digest(signing, part)
    expected = hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, parts["Signature"]):
        return "the signature does not match"
    signed.append(key_id)
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        why = fault(self, body)
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body.decode()).items()}
        if why is None and form.get("Action") == "AssumeRole":
            assumed.append(form)
            end = datetime.now(timezone.utc) + timedelta(seconds=int(form["DurationSeconds"]))
            role = form["RoleArn"].rsplit("/", 1)[1]
            status, answer = 200, (
                '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
                f"<SourceIdentity>{form['SourceIdentity']}</SourceIdentity><AssumedRoleUser>"
                f"<Arn>arn:aws:sts::123456789012:assumed-role/{role}/{form['RoleSessionName']}</Arn>"
                f"<AssumedRoleId>AROA:{form['RoleSessionName']}</AssumedRoleId></AssumedRoleUser><Credentials>"
                "<AccessKeyId>ASIASECOND</AccessKeyId><SecretAccessKey>second-secret</SecretAccessKey>"
                "<SessionToken>second-session</SessionToken>"
                f"<Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
                "<PackedPolicySize>8</PackedPolicySize></AssumeRoleResult>"
                "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>"
            )
        elif why is None and form.get("Action") == "GetCallerIdentity":
            status, answer = 200, (
                '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                "<GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/deploy/job</Arn>"
                "<UserId>AROA:job</UserId><Account>123456789012</Account></GetCallerIdentityResult>"
                "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
            )
        else:
            refused.append(why)
            status, answer = 403, (
                '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
                f"<Code>SignatureDoesNotMatch</Code><Message>{why}</Message></Error></ErrorResponse>"
            )
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "accept" in order:
        accepted[order["accept"]["id"]] = order["accept"]
    elif "refuse" in order:
        accepted.pop(order["refuse"], None)
    elif "assumed" in order:
        print(json.dumps({"assumed": assumed}), flush=True)
        continue
    print(json.dumps({"signed": signed, "refused": refused}), flush=True)

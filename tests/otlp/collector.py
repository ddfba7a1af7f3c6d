"""A fake OpenTelemetry collector, strict: it reads OTLP over HTTP by OpenTelemetry's own definitions (PyPI
opentelemetry-proto), and refuses what a real one would or should: another path, method, type or encoding, bytes that are
no message, fields that no definition has.

It prints its URL, then each request that it took, and at each line that it reads that there were no others before. With a
certificate and a key as arguments it speaks TLS.
"""

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

ROUTES = {
    "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
}
printing = threading.Lock()


def tell(line):
    with printing:
        print(json.dumps(line), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            kind, answer = ROUTES[self.path]
            assert self.headers["content-type"] == "application/x-protobuf", self.headers["content-type"]
            assert self.headers["content-encoding"] is None, self.headers["content-encoding"]
            message = kind.FromString(body)
            known = kind.FromString(body)
            known.DiscardUnknownFields()
            assert known.ByteSize() == message.ByteSize(), "fields that no definition has"
        except Exception as fault:
            tell({"refused": f"{self.path}: {fault!r}"})
            self.answer(400, b"")
            return
        tell({"path": self.path, "body": MessageToDict(message)})
        self.answer(200, answer().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
scheme = "http"
if len(sys.argv) == 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https"
threading.Thread(target=server.serve_forever, daemon=True).start()
tell({"url": f"{scheme}://127.0.0.1:{server.server_port}"})
for _ in sys.stdin:
    tell({"no_more": True})

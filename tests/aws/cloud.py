"""Calls AWS's services by AWS's own SDK for Python, as lines of JSON on stdin say:

    {"service": "s3", "call": "put_object", "arguments": {…}, "as": {"id": …, "secret": …, "session": … or null}}

and prints {"answer": …} or {"fault": the service's code}. The endpoint is the first argument.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# Checksums in trailers are newer than some servers that speak S3.
PLAIN = Config(
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"total_max_attempts": 1},
)

for line in sys.stdin:
    order = json.loads(line)
    who = order["as"]
    session = boto3.Session(who["id"], who["secret"], who.get("session"), region_name="us-east-1")
    client = session.client(order["service"], endpoint_url=sys.argv[1], config=PLAIN)
    try:
        answer = getattr(client, order["call"])(**order["arguments"])
        if "Body" in answer:
            answer["Body"] = answer["Body"].read().decode()
        print(json.dumps({"answer": answer}, default=str), flush=True)
    except ClientError as fault:
        print(json.dumps({"fault": fault.response.get("Error", {}).get("Code") or "none"}), flush=True)

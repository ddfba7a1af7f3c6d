"""Asks AWS's own SDK for Python who it is, once for each line on stdin; where credentials come from is its own affair.

It prints the account as a line of JSON, or what went wrong.
"""

import json
import sys

import boto3

client = boto3.Session().client("sts", region_name="eu-west-2", endpoint_url=sys.argv[1])
for _ in sys.stdin:
    try:
        print(json.dumps({"account": client.get_caller_identity()["Account"]}), flush=True)
    except Exception as fault:  # whatever it is, the test shows it
        print(json.dumps({"fault": f"{type(fault).__name__}: {fault}"}), flush=True)

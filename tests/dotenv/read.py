"""Reads dotenv files as python-dotenv does: a line {"text": ...} in, a line {"values": {...}} out."""

import io
import json
import sys

from dotenv import dotenv_values

for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"values": dict(dotenv_values(stream=io.StringIO(text)))}), flush=True)

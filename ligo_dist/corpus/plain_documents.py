"""Documents as lines of JSON, for readers that know nothing of this project.

A line is `{"text": ...}`, or `{"base64": ...}` for a document whose bytes are not UTF-8.
"""

from __future__ import annotations

import base64
import json


def document_line(document: bytes) -> bytes:
    """One document as a line of a JSON-lines file, line end included."""
    try:
        content = {"text": document.decode("utf-8")}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(document).decode("ascii")}
    return json.dumps(content, ensure_ascii=False).encode("utf-8") + b"\n"

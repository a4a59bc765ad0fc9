"""`logging` in a function, as on AWS: one handler, a line with level, time and request id, or JSON.

A record is one event of the log, whatever lines it has.

It also runs by other versions of Python, since 3.9.

Format: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import sys
import time
import traceback
from collections.abc import Sequence

_HEADER = struct.Struct(">IIQ")
# The kind of a frame of text without a level; the endpoint needs no more.
_KIND = 0xA55A0003
_STANDARD_OUTPUT = 1
_TEXT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "aws_request_id"}
# The invocation that runs; empty before the first one.
current_request_id = ""


def set_up(log_format: str | None, level: str | None) -> None:
    """Give the root logger the handler that it has on AWS.

    Parameters
    ----------
    log_format
        ``JSON`` or anything else for text.
    level
        The level of the root logger; None keeps Python's, WARNING.
    """
    handler = _FrameHandler()
    if log_format == "JSON":
        handler.setFormatter(_JsonFormatter())
    else:
        formatter = logging.Formatter(_TEXT, "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    if level:
        root.setLevel({"TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(level.upper(), level.upper()))


def write_frame(text: str) -> None:
    """Write one event to standard output, framed: it may have several lines."""
    content = text.encode(errors="backslashreplace")
    # A handler may have closed the descriptor; its response is sent in any case.
    with contextlib.suppress(OSError):
        frame = memoryview(_HEADER.pack(_KIND, len(content), time.time_ns() // 1000) + content)
        while frame:
            frame = frame[os.write(_STANDARD_OUTPUT, frame) :]


def json_error(kind: str, message: str, frames: Sequence[str], request_id: str) -> str:
    """Return the JSON line of an exception that a handler has raised."""
    body = {
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "log_level": "ERROR",
        "errorMessage": message,
        "errorType": kind,
        "requestId": request_id,
        "stackTrace": list(frames),
    }
    return json.dumps(body, ensure_ascii=False) + "\n"


class _FrameHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = current_request_id
        # What was printed before stays before it.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        write_frame(self.format(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        kind, error, trace = record.exc_info or (None, None, None)
        is_object = isinstance(record.msg, dict) and not record.args
        body = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.msg if is_object else record.getMessage(),
            "logger": record.name,
            "stackTrace": traceback.format_tb(trace) if kind else None,
            "errorType": kind.__name__ if kind else None,
            "errorMessage": str(error) if kind else None,
            "requestId": current_request_id,
            "location": f"{record.pathname}:{record.funcName}:{record.lineno}" if kind else None,
        }
        body |= {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS and name not in body}
        return json.dumps({k: v for k, v in body.items() if v is not None}, ensure_ascii=False, default=str) + "\n"

"""What a worker process of `awrs_ppl.workers` does; it imports little, to start quickly."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any

from awrs_ppl.workers._answers import Answer, failed, returned

__all__ = ["ENDED", "send", "serve"]

# What reading or writing raises where the process at the other side has ended.
ENDED = (OSError, EOFError, pickle.UnpicklingError)


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message."""
    pickle.dump(message, stream)
    stream.flush()


def serve() -> None:
    """Take pickled functions and texts from stdin, and give the answers to stdout, for ever.

    A message is `(digest, pickled function)`, `(digest, text)`, or None to forget all functions.
    The first two are answered by whether it went well, the pickled result or exception, and a
    traceback.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a function prints is no answer, and the requests are not for it to read.
    sys.stdout = sys.stderr
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(requests, inbox), daemon=True).start()
    functions: dict[bytes, Callable[[str], Any]] = {}

    def load(digest: bytes, data: bytes) -> None:
        functions[digest] = pickle.loads(data)

    try:
        send(answers, "ready")
        while True:
            message = inbox.get()
            if message is None:
                functions.clear()
                continue
            digest, content = message
            if isinstance(content, bytes):
                send(answers, _answer(load, digest, content))
            else:
                send(answers, _answer(functions[digest], content))
    finally:
        # After `sys.exit` in a function, at once: or the streams are closed before the process.
        os._exit(1)


def _read(requests: IO[bytes], inbox: SimpleQueue[Any]) -> None:
    """Fill the inbox, and end the process with the program, also while a function runs."""
    with suppress(*ENDED):
        while True:
            inbox.put(pickle.load(requests))
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _answer(function: Callable[..., Any], *arguments: Any) -> Answer:
    try:
        return returned(function(*arguments))
    except Exception as error:
        return failed(error)

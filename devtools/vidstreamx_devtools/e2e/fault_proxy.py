"""Stands between a consumer and the services, and can end the consumer at a call of its choice.

A program that is killed at any moment of time dies while it waits, nearly always. What matters happens
within milliseconds: the task is started and its ARN not yet in the record, the record is written and the
answer not yet there. So a moment is a call, and either it never arrives or its answer does not.
"""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Moment:
    """The nth call of a kind, before or after it takes effect."""

    call: str
    nth: int
    answered: bool  # the service has done it, and its answer is on the way

    def __str__(self) -> str:
        return f"{'after' if self.answered else 'before'} {self.call} {self.nth}"


class Between:
    """`port` is where the consumer finds the services."""

    def __init__(self, port: int):
        self.port = port
        self.struck = threading.Event()
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._strike: Callable[[], None] = lambda: None
        self._seen = 0

    def arm(self, moment: Moment, strike: Callable[[], None]) -> None:
        """Calls `strike` at that moment, counted from now, once."""
        with self._lock:
            self._moment, self._strike, self._seen = moment, strike, 0
            self.struck.clear()

    def _is_the_moment(self, call: str) -> Moment | None:
        with self._lock:
            moment = self._moment
            if moment is None or moment.call != call:
                return None
            self._seen += 1
            if self._seen < moment.nth:
                return None
            self._moment = None
            return moment

    def _end_it(self) -> None:
        self.struck.set()  # first: else who looks on takes the end for a crash
        self._strike()

    def carry(self, client: socket.socket, service: socket.socket) -> None:
        """One connection: HTTP/1.1, one call after the other."""
        head, moment = b"", None
        while True:
            for side in select.select([client, service], [], [])[0]:
                data = side.recv(_CHUNK)
                if not data:
                    return
                if side is service:
                    if moment:
                        return self._end_it()
                    head = b""
                elif b"\r\n\r\n" not in head:
                    head += data
                    if b"\r\n\r\n" in head:
                        moment = self._is_the_moment(_call(head))
                        if moment and not moment.answered:
                            return self._end_it()
                (client if side is service else service).sendall(data)


def _call(head: bytes) -> str:
    """What a request asks for: ECS's and SQS's action, or what happens to one of the consumer's records."""
    target = re.search(rb"(?im)^x-amz-target: \w+\.(\w+)", head)
    if target:
        return target[1].decode()
    method, path = head.split(b" ", 2)[:2]
    if b"/.vidstreamx/jobs/" in path:
        return f"{method.decode()} record"
    return method.decode()


@contextmanager
def between(services: int):
    """Listens on a port of its own for as long as it is needed."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", services)) as service:
                here.carry(self.request, service)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        here = Between(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield here
        finally:
            server.shutdown()
            thread.join()

"""A proxy between a consumer and the AWS services that kills the consumer at a chosen call.

A program killed at a random time nearly always dies while it waits. The critical windows are milliseconds
long: the task is started but its ARN is not in the record yet, or the record is written but the response has
not arrived. So a fault point is a call: either the call never reaches the service, or its response never
reaches the consumer.
"""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_CHUNK = 1 << 16


@dataclass(frozen=True)
class FaultPoint:
    """The nth call of a kind, before it reaches the service or after the service has executed it."""

    call: str
    nth: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.call} {self.nth}"


class FaultProxy:
    """The consumer uses `port` as its endpoint. `triggered` is set when the fault point is reached."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.triggered = threading.Event()
        self._lock = threading.Lock()
        self._point: FaultPoint | None = None
        self._on_fault: Callable[[], None] = lambda: None
        self._count = 0

    def arm(self, point: FaultPoint, on_fault: Callable[[], None]) -> None:
        """Runs `on_fault` once, at the fault point. The count of calls begins now."""
        with self._lock:
            self._point, self._on_fault, self._count = point, on_fault, 0
            self.triggered.clear()

    def _match(self, call: str) -> FaultPoint | None:
        with self._lock:
            point = self._point
            if point is None or point.call != call:
                return None
            self._count += 1
            if self._count < point.nth:
                return None
            self._point = None
            return point

    def _trigger(self) -> None:
        self.triggered.set()  # first; otherwise the test would report the consumer's end as a crash
        self._on_fault()

    def forward(self, client: socket.socket, service: socket.socket) -> None:
        """Forwards one connection: HTTP/1.1, one call after the other."""
        head, point = b"", None
        while True:
            for side in select.select([client, service], [], [])[0]:
                data = side.recv(_CHUNK)
                if not data:
                    return
                if side is service:
                    if point:
                        self._trigger()
                        return
                    head = b""
                elif b"\r\n\r\n" not in head:
                    head += data
                    if b"\r\n\r\n" in head:
                        point = self._match(_call(head))
                        if point and not point.after:
                            self._trigger()
                            return
                (client if side is service else service).sendall(data)


def _call(head: bytes) -> str:
    """The kind of a request: the action of ECS and SQS, the method for a record, or the method."""
    target = re.search(rb"(?im)^x-amz-target: \w+\.(\w+)", head)
    if target:
        return target[1].decode()
    method, path = head.split(b" ", 2)[:2]
    if b"/.vidstreamx/jobs/" in path:
        return f"{method.decode()} record"
    return method.decode()


@contextmanager
def fault_proxy(service_port: int) -> Iterator[FaultProxy]:
    """Runs a proxy on a free port until the end of the block."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", service_port)) as service:
                proxy.forward(self.request, service)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = FaultProxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()

# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The live page: one HTML file and a stream of events, for browsers; read-only. No ROS."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hri_emo_ros.errors import HriEmoError

if TYPE_CHECKING:
    from tornado.web import Application

PAGE = Path(__file__).with_name("page.html")
KEPT = 100
"""Events of each kind in `LivePage.histories` that whoever opens the page later is told."""
BEHIND = 500
"""Events that a browser may be behind; one that falls further back is disconnected, and comes again by itself."""
HEADERS = {
    # All that the page needs is in it; nothing is fetched from anywhere else.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of "PORT" or "HOST:PORT"; alone, the port is this machine's only.

    Raises:
        HriEmoError: it is neither; the port has to be from 0 (any free one) to 65535.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]") if host else "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise HriEmoError(
            f"--web '{text}': give a port from 0 to 65535, or HOST:PORT to be seen from elsewhere"
        )
    return host, int(port)


class LivePage:
    """Serves the page, in a thread of its own, and tells every browser that has it open what `tell` is told.

    Args:
        host: address to listen at. Only at a loopback address are other names than this machine's
            refused: what is said here is nobody else's, whatever name a web site gives this address.
        port: 0 takes a free one.
        histories: kinds of events of which the last hundred are kept for whoever comes later;
            of others the last one is.

    Raises:
        HriEmoError: tornado is not installed, or the address cannot be listened at.
    """

    def __init__(self, host: str, port: int, histories: Sequence[str] = ()) -> None:
        self._host, self._port = host, port
        self._kept: dict[str, deque[str]] = {kind: deque(maxlen=KEPT) for kind in histories}
        self._browsers: set[asyncio.Queue[str | None]] = set()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        started: list[Exception | int] = []
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve(started, ready)), daemon=True
        )
        self._thread.start()
        ready.wait()
        if isinstance(started[0], Exception):
            self._thread.join()
            raise HriEmoError(_reason(started[0], host, port)) from started[0]
        self._port = started[0]

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    def tell(self, kind: str, data: Any, keep: bool = True) -> None:
        """Send an event to every browser.

        Args:
            kind: name of the event.
            data: what JSON can say; no NaN.
            keep: tell it also to those who come later.
        """
        event = f"event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
        self._loop.call_soon_threadsafe(self._pass_on, kind, event, keep)

    def close(self) -> None:
        """Stop serving."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    # -- in the server's thread -----------------------------------------------------------------

    def _pass_on(self, kind: str, event: str, keep: bool) -> None:
        if keep:
            self._kept.setdefault(kind, deque(maxlen=1)).append(event)
        for queue in list(self._browsers):
            if queue.qsize() >= BEHIND:
                self._browsers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def _serve(self, started: list[Exception | int], ready: threading.Event) -> None:
        try:
            from tornado.httpserver import HTTPServer
            from tornado.netutil import bind_sockets

            server = HTTPServer(self._application())
            sockets = bind_sockets(self._port, self._host)
            server.add_sockets(sockets)
            started.append(int(sockets[0].getsockname()[1]))
        except Exception as error:
            started.append(error)
            return
        finally:
            ready.set()
        await self._end.wait()
        server.stop()
        for queue in self._browsers:
            queue.put_nowait(None)
        await server.close_all_connections()

    def _application(self) -> Application:
        from tornado.iostream import StreamClosedError
        from tornado.web import Application, HTTPError, RequestHandler

        live, local = self, _is_loopback(self._host)

        class Handler(RequestHandler):
            def set_default_headers(self) -> None:
                for name, value in HEADERS.items():
                    self.set_header(name, value)

            def prepare(self) -> None:
                name = self.request.host_name.strip("[]")
                if local and name != "localhost" and not _is_loopback(name):
                    raise HTTPError(403, reason="this page is for this machine alone")

        class Page(Handler):
            def get(self) -> None:
                self.finish(PAGE.read_text(encoding="utf-8"))

        class Events(Handler):
            async def get(self) -> None:
                self.set_header("Content-Type", "text/event-stream")
                queue: asyncio.Queue[str | None] = asyncio.Queue()
                for kept in live._kept.values():
                    for old in kept:
                        queue.put_nowait(old)
                live._browsers.add(queue)
                self._queue = queue
                try:
                    # At once, so that the browser knows that it is connected.
                    self.write(": hri_emo\n\n")
                    await self.flush()
                    while (event := await queue.get()) is not None:
                        self.write(event)
                        await self.flush()
                except StreamClosedError:
                    pass
                finally:
                    live._browsers.discard(queue)

            def on_connection_close(self) -> None:
                self._queue.put_nowait(None)

        return Application([("/", Page), ("/events", Events)], log_function=lambda handler: None)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _reason(error: Exception, host: str, port: int) -> str:
    if isinstance(error, ImportError):
        return (
            "hri-emo monitor --web needs tornado: sudo apt-get install python3-tornado, "
            "or pip install tornado"
        )
    return f"--web {host}:{port}: {error}; give another port, or 0 for any that is free"


def plain(message: Any) -> Any:
    """A ROS message as what JSON can say: dicts, lists, numbers; NaN and infinity become null."""
    if hasattr(message, "get_fields_and_field_types"):
        return {
            name: plain(getattr(message, name)) for name in message.get_fields_and_field_types()
        }
    if isinstance(message, Mapping):
        return {str(name): plain(value) for name, value in message.items()}
    if isinstance(message, (str, bool, int)):
        return message
    if isinstance(message, bytes):
        return list(message)
    if isinstance(message, float):
        return message if abs(message) < float("inf") else None
    return [plain(each) for each in message]

# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Drives a headless Chromium through its DevTools protocol, with what tornado brings."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Browser:
    """One page of a browser; `errors` are what its console and its scripts reported.

    Args:
        profile: an empty folder for what it writes.
    """

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.errors: list[str] = []

    def __enter__(self) -> Browser:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *QUIET, f"--user-data-dir={self._profile}", "--remote-debugging-port=0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60.0
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < deadline, "chromium does not start"
            time.sleep(0.1)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (page,) = (each for each in json.load(answer) if each["type"] == "page")

        async def connect() -> WebSocketClientConnection:
            return await websocket_connect(page["webSocketDebuggerUrl"])

        self._socket = self._loop.run_until_complete(connect())
        self._call("Runtime.enable")
        self._call("Log.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(30.0)
        self._loop.close()

    def open(self, url: str) -> None:
        """Begin to load a page."""
        self._call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives in the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def until(
        self, expression: str, meanwhile: Callable[[], object], seconds: float = 60.0
    ) -> bool:
        """Wait until an expression is true in the page."""
        deadline = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > deadline:
                return False
            meanwhile()
        return True

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1

        async def ask() -> Any:
            await self._socket.write_message(
                json.dumps({"id": self._number, "method": method, "params": parameters})
            )
            while True:
                told = json.loads(str(await self._socket.read_message()))
                if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                    self.errors.append(json.dumps(told["params"]))
                if told.get("id") == self._number:
                    return told["result"]

        return self._loop.run_until_complete(ask())

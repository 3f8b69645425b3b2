"""A headless browser that is spoken to in its DevTools protocol, and other programs that run for a while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import count
from typing import Any

import aiohttp

PATIENCE_SECONDS = 90.0
"""For a program to start, and for a page to show what it should."""


class Tab:
    """A tab of the browser, spoken to in its DevTools protocol."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection, self._numbers = connection, count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._connection.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._connection.receive_json()
            if answer.get("id") == number:
                if "error" in answer:
                    raise SystemExit(f"the browser refuses {method}: {answer['error']['message']}")
                return answer["result"]

    async def open(self, url: str) -> None:
        """Go to a page as if it was the first one: pages of one server would else replace each other unseen."""
        for place in ("about:blank", url):
            await self.call("Page.navigate", url=place)

    async def evaluate(self, script: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=script))["result"].get("value")

    async def wait_for(self, texts: tuple[str, ...]) -> None:
        """Wait until the page shows all of some texts."""
        shows = f"{json.dumps(texts)}.every(text => document.body && document.body.innerText.includes(text))"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await self.evaluate(shows):
            if time.monotonic() > deadline:
                text = await self.evaluate("document.body.innerText")
                raise SystemExit(f"the page does not show {texts}; it shows\n{text}")
            await asyncio.sleep(0.5)


@contextlib.contextmanager
def browser() -> Iterator[str]:
    """A headless browser with one empty tab; gives the address of the tab's DevTools."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is needed: apt-get install chromium")
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--remote-debugging-port={port}", f"--user-data-dir={profile}"]
        with running([*command, "about:blank"]):
            wait_for_answer(f"http://127.0.0.1:{port}/json/version")
            tabs = ask(f"http://127.0.0.1:{port}/json")
            yield next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A program that is ended with the block."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} does not answer: {error}") from error
            time.sleep(0.5)


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """What a server answers, read as JSON; with a body it is posted."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

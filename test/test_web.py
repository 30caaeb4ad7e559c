# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The live page: served to this machine alone, and what it shows of a running graph."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("tornado")

from browser import CHROMIUM, Browser

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.view import web
from hri_emo_ros.view.web import LivePage, parse_address, plain


class Events:
    """An open stream of server-sent events."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60.0)
        self._connection.request("GET", "/events")
        self._answer = self._connection.getresponse()
        assert self._answer.headers["Content-Type"] == "text/event-stream"
        assert self._answer.readline().startswith(b":")
        assert self._answer.readline() == b"\n"

    def next(self) -> tuple[str, Any]:
        """(kind, data) of the next event."""
        kind = self._answer.readline().decode().removeprefix("event: ").strip()
        data = json.loads(self._answer.readline().decode().removeprefix("data: "))
        assert self._answer.readline() == b"\n"
        return kind, data

    def ended(self) -> bool:
        return not self._answer.readline()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def page() -> Iterator[LivePage]:
    with closing(LivePage("127.0.0.1", 0, histories=["state"])) as served:
        yield served


def ask(page: LivePage, method: str = "GET", path: str = "/", **headers: str) -> Any:
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=30.0)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def test_the_page_needs_nothing_from_elsewhere(page: LivePage) -> None:
    status, headers, body = ask(page)
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "http://" not in body.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in body


def test_it_is_read_only(page: LivePage) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert ask(page, method)[0] == 405
    assert ask(page, path="/etc/passwd")[0] == 404


def test_a_web_site_that_gives_this_machine_its_name_sees_nothing(page: LivePage) -> None:
    """DNS rebinding: the browser takes the answer for the site's own."""
    for path in ("/", "/events"):
        assert ask(page, path=path, Host="example.com")[0] == 403
    assert ask(page, Host="localhost:80")[0] == 200
    assert "Access-Control-Allow-Origin" not in ask(page)[1]


def test_who_comes_late_is_told_what_was_kept(page: LivePage) -> None:
    for number in range(web.KEPT + 5):
        page.tell("state", number)
    page.tell("state", "provisional", keep=False)
    page.tell("health", "old")
    page.tell("health", "new")
    with closing(Events(page.url)) as late:
        assert [late.next() for _ in range(web.KEPT)] == [
            ("state", n) for n in range(5, web.KEPT + 5)
        ]
        assert late.next() == ("health", "new")
        page.tell("state", "next\nline")
        assert late.next() == ("state", "next\nline")


def test_every_browser_is_told_and_closing_ends_them(page: LivePage) -> None:
    with closing(Events(page.url)) as one, closing(Events(page.url)) as other:
        page.tell("state", {"words": "schöne Grüße"})
        assert one.next() == other.next() == ("state", {"words": "schöne Grüße"})
        page.close()
        assert one.ended()
        assert other.ended()


def test_an_address_that_is_taken_or_none_is_refused_in_one_sentence(page: LivePage) -> None:
    port = urlsplit(page.url).port
    assert port is not None
    with pytest.raises(HriEmoError, match=f"--web 127.0.0.1:{port}: .*in use.* give another port"):
        LivePage("127.0.0.1", port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:80", ("::1", 80)),
        ("robot.local:8080", ("robot.local", 8080)),
    ],
)
def test_alone_a_port_is_this_machines(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "web", "70000", "-1", "localhost:", "127.0.0.1"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(HriEmoError, match=f"--web '{text}'"):
        parse_address(text)


def test_numbers_that_json_has_not_become_null() -> None:
    message = SimpleNamespace(
        get_fields_and_field_types=lambda: {"a": "", "b": ""}, a=float("nan"), b=[1.5, float("inf")]
    )
    assert plain(message) == {"a": None, "b": [1.5, None]}


# --- A running graph -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(graph: Any) -> Iterator[str]:
    """`hri-emo monitor --web` of the module's graph."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hri_emo_ros.cli.main", "monitor", "--web", "0"],
        env={
            **os.environ,
            "ROS_DOMAIN_ID": str(graph.domain_id),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().removeprefix("live page: ").strip()
    finally:
        process.terminate()
        process.wait(30.0)


@pytest.mark.ros
@pytest.mark.timeout(600)
def test_the_stream_of_a_running_graph(graph: Any, heard: Any, url: str) -> None:
    from ros_playing import clips, play

    wanted = {"state", "conversation", "health"}
    with closing(Events(url)) as events:
        assert graph.spin_until(lambda: graph.node.count_subscribers("/emotion_state") > 1)
        play(graph, clips("emodb_10a07Ta", gap=1.0))
        assert graph.spin_until(lambda: heard.finals)
        told: dict[str, Any] = {}
        while not (
            wanted <= set(told) and told["state"]["stage"] == 1 and len(told["health"]) == 2
        ):
            kind, data = events.next()
            told[kind] = data
    state, final = told["state"], heard.finals[-1]
    assert state["utterance_id"] == final.utterance_id
    assert [s["label"] for s in state["scores"]] == [s.label for s in final.scores]
    assert {n["name"] for n in told["health"]} == {"speech_node", "emotion_node"}
    assert all(n["values"]["state"] == "active" for n in told["health"])


@pytest.mark.ros
@pytest.mark.timeout(600)
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_who_speaks_what_is_said_and_how(
    graph: Any, heard: Any, url: str, tmp_path: Path
) -> None:
    from ros_playing import clips, play

    from hri_emo_msgs.msg import Transcript

    publisher = graph.node.create_publisher(Transcript, "transcript", 10)

    def spin() -> None:
        graph.spin(0.05)

    with Browser(tmp_path) as browser:
        browser.open(url)
        assert browser.until("document.querySelectorAll('#nodes .pill').length === 2", spin)
        play(graph, clips("emodb_10a07Ta", gap=1.0))
        assert graph.spin_until(lambda: heard.finals)
        final = heard.finals[-1]
        row = "document.querySelector('#said tbody tr')"
        assert browser.until(f"{row} && current.stage === 1", spin)
        assert browser.value("document.querySelectorAll('#scores .bar').length") == len(
            final.scores
        )
        assert browser.value("document.querySelectorAll('#time rect').length") > len(final.scores)
        shown = browser.value("document.querySelector('#verdict').textContent")
        assert shown.startswith(final.dominant or "abstained")
        # Words as they come; what looks like HTML is text.
        words = "so <img src=x onerror=alert(1)> sad"
        message = Transcript(
            stream_id=final.stream_id, utterance_id=final.utterance_id, text=words, confidence=0.9
        )
        assert browser.until(
            f"document.querySelector('#words').textContent === '{words}'",
            lambda: (publisher.publish(message), spin()),
        )
        assert not browser.value("document.querySelector('#words img') !== null")
        assert browser.errors == []
    graph.node.destroy_publisher(publisher)

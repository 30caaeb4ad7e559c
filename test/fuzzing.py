# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Random and mutated messages, parameters, recordings and bundles, as many as asked for: `test_fuzz`, `tools/fuzz`.

Whatever comes in, the real nodes and readers go on or refuse it in one sentence: no other exception, no hang, no
number that is none, no probabilities that do not sum to 1. Each function returns what it counted.
"""

from __future__ import annotations

import array
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from nodes_here import NodesHere
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_playing import (
    Heard,
    all_listen,
    clips,
    create_publisher,
    listen,
    pcm,
    play,
    probabilities,
    restart,
    tell,
)
from std_msgs.msg import Bool

from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_source import BagSource
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.joiner import UtteranceJoiner
from hri_emo_ros.model.bundle import CONFIG_FILE, _identity
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.emotion_node import EmotionNode
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.nodes.lifecycle import HriNode
from hri_emo_ros.nodes.speech_node import SpeechNode
from hri_emo_ros.parameters import NODES, SAMPLE_FORMATS, check, defaults
from hri_emo_ros.types import SAMPLE_RATE, SignalQuality, Transcript

WORDS = "emodb_10a07Ta"
STEP = 200
"""Messages between two looks at whether the nodes keep up."""
HEADERS = (
    b"RIFF\x00\x00\x00\x00WAVEfmt ",
    b"ID3\x04\x00",
    b"\xff\xfb\x90\x64",
    b"OggS",
    b"fLaC",
    b"",
)


class Unsound(AssertionError):
    """Something came out that must not."""


def sentence(error: Exception) -> None:
    """A refusal is one line."""
    if len(str(error).splitlines()) != 1 or len(str(error)) > 2000:
        raise Unsound(f"not a sentence: {error!s:.300}")


@contextmanager
def nodes_under_fire(
    bundle: Path, domain: int
) -> Iterator[tuple[Graph, Heard, NodesHere, list[str], Counter[str]]]:
    """speech_node and emotion_node, active, and what they raised that is no refusal."""
    raised: list[str] = []
    given_parameters = {
        "speech_node": {"audio.queue": 120.0, "audio.timeout": 3600.0},
        "emotion_node": {
            "model.bundle": str(bundle), "model.threads": 1, "transcript.source": "none",
            "explanation.enabled": True,
        },
    }  # fmt: skip
    with (
        NodesHere(domain, (SpeechNode, EmotionNode), given_parameters) as nodes,
        Graph(nodes=(), domain_id=domain) as graph,
    ):
        for node in nodes.nodes.values():
            _record(node, raised)
        taken = _counted_input(nodes.nodes["speech_node"])
        heard = listen(graph, nodes.nodes)
        nodes.start(graph)
        all_listen(graph, heard)
        yield graph, heard, nodes, raised, taken


def _record(node: HriNode, raised: list[str]) -> None:
    before = node.failed

    def failed(kind: str, error: BaseException) -> str:
        if not isinstance(error, HriEmoError):
            raised.append(f"{node.kind}, {kind}: {type(error).__name__}: {error}")
        return before(kind, error)

    node.failed = failed  # type: ignore[method-assign]


def check_heard(heard: Heard, counted: Counter[str]) -> None:
    """What came out so far is sound; forgets it."""
    for chunk in heard.speech:
        samples = np.frombuffer(chunk.samples, np.float32)
        quality = chunk.quality
        figures = (
            quality.snr_db,
            quality.level_dbfs,
            quality.clipped_fraction,
            quality.speech_fraction,
        )
        if not (np.isfinite(samples).all() and np.isfinite(figures).all()):
            raise Unsound(f"a chunk with NaN: {figures}")
        if np.abs(samples).max(initial=0.0) > 2.0:
            raise Unsound(f"samples of {np.abs(samples).max()}")
    for state in heard.states:
        p = probabilities(state)
        counted["states"] += 1
        counted["abstained"] += state.abstained
        if p and not (np.isfinite(p).all() and abs(sum(p) - 1.0) < 1e-3):
            raise Unsound(f"probabilities {p}")
        figures = (state.uncertainty, state.audio_weight, state.text_weight, state.duration)
        if (
            not np.isfinite(figures).all()
            or not abs(state.audio_weight + state.text_weight - 1) < 1e-3
        ):
            raise Unsound(f"uncertainty, weights, duration: {figures}")
    counted["chunks"] += len(heard.speech)
    heard.clear()


# -- audio messages -----------------------------------------------------------------------------


class Sender:
    """Makes one odd message after the other; in between a stretch of good ones, so that people are heard."""

    def __init__(self, number: int) -> None:
        self.rng = np.random.default_rng(number)
        self._voice = pcm(clips(WORDS, "emodb_11a02Wc"), SAMPLE_RATE, 1)[:, 0]
        self._at = self._good = 0
        self._stamp = 1_700_000_000 * 10**9

    def audio(self) -> AudioDataStamped:
        rng = self.rng
        if self._good == 0 and rng.random() < 0.005:
            self._good = 300
        frames = int(rng.choice([160, 320, 320, 320, 512, 1600]))
        if self._at + frames > len(self._voice):
            self._at = 0
        data = self._voice[self._at : self._at + frames].tobytes()
        self._at += frames
        self._stamp += frames * 10**9 // SAMPLE_RATE
        if self._good:
            self._good -= 1
        else:
            data = self._mutated(data)
            if rng.random() < 0.1:
                self._stamp += int(rng.normal() * 10 ** rng.uniform(3, 12))
        self._stamp = min(max(self._stamp, 0), 2**31 * 10**9 - 1)
        message = AudioDataStamped(audio=AudioData(data=array.array("B", data)))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp, 10**9)
        if not self._good and rng.random() < 0.05:
            message.header.stamp.sec = int(rng.integers(-(2**31), 2**31))
            message.header.stamp.nanosec = int(rng.integers(0, 2**32))
        if rng.random() < 0.05:
            message.header.frame_id = "".join(chr(int(c)) for c in rng.integers(1, 0x2FF, 20))
        return message

    def _mutated(self, data: bytes) -> bytes:
        rng, kind = self.rng, int(self.rng.integers(9))
        if kind == 0:
            return rng.bytes(int(rng.integers(0, 3000)))
        if kind == 1:
            return data[: int(rng.integers(len(data)))]
        if kind == 2:
            return HEADERS[int(rng.integers(len(HEADERS)))] + data
        if kind == 3:
            return bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * int(rng.integers(0, 2000))
        if kind == 4 and rng.random() < 0.02:
            return rng.bytes(200_000)
        if kind == 5:
            return np.array([np.nan, np.inf, -np.inf, 1e38, 3.0], "<f4").tobytes() * 20
        changed = bytearray(data)
        for place in rng.integers(len(changed), size=int(rng.integers(0, 20))):
            changed[place] = int(rng.integers(256))
        return bytes(changed)

    def info(self) -> AudioInfo:
        rng = self.rng
        if rng.random() < 0.6:  # Back to what the good stretches are.
            self._good = 300
            return AudioInfo(
                channels=1, sample_rate=SAMPLE_RATE, sample_format="S16LE", coding_format="wave"
            )
        formats = [*SAMPLE_FORMATS, "", "s16le", "S16", "F32", "\x00", "S" * 200]
        return AudioInfo(
            channels=int(rng.choice([0, 1, 1, 2, 6, 255])),
            sample_rate=int(
                rng.choice([0, 1, 3999, 8000, 16000, 44100, 192000, 192001, 2**32 - 1])
            ),
            sample_format=str(rng.choice(formats)),
            bitrate=int(rng.integers(0, 2**32)),
            coding_format=str(
                rng.choice(["wave", "wave", "wave", "WAVE", "mp3", "opus", "", "raw"])
            ),
        )


def fuzz_messages(count: int, number: int, bundle: Path, domain: int) -> Counter[str]:
    """`count` messages over DDS; ends with good ones that must be heard."""
    sender, counted = Sender(number), Counter[str]()
    with nodes_under_fire(bundle, domain) as (graph, heard, nodes, raised, taken):
        deep = QoSProfile(depth=2 * STEP)
        audio = create_publisher(graph, AudioDataStamped, "audio", deep, "speech_node")
        told = create_publisher(graph, AudioInfo, "audio_info", qos.AUDIO_INFO, "speech_node")
        robot = create_publisher(graph, Bool, "robot_speaking", qos.EVENT, "speech_node")
        worker = nodes.nodes["speech_node"]._worker
        for sent in range(1, count + 1):
            what = sender.rng.random()
            if what < 0.02:
                told.publish(sender.info())
                counted["infos"] += 1
            elif what < 0.025:
                robot.publish(Bool(data=bool(sender.rng.random() < 0.3)))
            audio.publish(sender.audio())
            counted["messages"] += 1
            if sent % STEP == 0:
                graph._executor.spin_once(timeout_sec=0.0)
                if not graph.spin_until(
                    lambda sent=sent: (
                        taken["audio"] + counted["undelivered"] >= sent and worker.waiting < 30.0
                    )
                ):
                    # A process that gets no processor loses what DDS does not keep for it.
                    counted["undelivered"] = sent - taken["audio"]
                if worker.waiting >= 30.0 or counted["undelivered"] > STEP + count // 50:
                    raise Unsound(f"{counted['undelivered']} messages are not taken: a hang")
                check_heard(heard, counted)
        tell(graph, robot, Bool(data=False))
        for publisher in (audio, told, robot):
            graph.node.destroy_publisher(publisher)
        _still_hears(graph, heard, counted)
        counted["refused"] = sum(nodes.nodes["speech_node"].diagnostics._counts.values())
        if raised:
            raise Unsound(f"{len(raised)} exceptions, the first: {raised[0]}")
    return counted


def _counted_input(node: Any) -> Counter[str]:
    """How many audio messages a node, not yet configured, will be given."""
    taken, before = Counter[str](), node._on_audio

    def callback(message: Any) -> None:
        taken["audio"] += 1
        before(message)

    node._on_audio = callback
    return taken


def _still_hears(graph: Graph, heard: Heard, counted: Counter[str]) -> None:
    """A clip of good sound has its one final state."""
    restart(graph)
    check_heard(heard, counted)
    heard.start_over()
    play(graph, clips(WORDS), speed=8.0)
    if not graph.spin_until(lambda: heard.finals):
        raise Unsound("nothing is heard any more")
    check_heard(heard, counted)


# -- parameters ---------------------------------------------------------------------------------


def _values(parameter: Any) -> st.SearchStrategy[Any]:
    """Mostly of the parameter's type and near its bounds, sometimes anything."""
    low = parameter.minimum if parameter.minimum is not None else -1e9
    high = parameter.maximum if parameter.maximum is not None else 1e9
    anything = st.one_of(
        st.floats(), st.integers(-(2**62), 2**62), st.text(max_size=30), st.booleans(),
        st.lists(st.text(max_size=5), min_size=1, max_size=3),
    )  # fmt: skip
    default = parameter.default
    if parameter.choices:
        own: st.SearchStrategy[Any] = st.sampled_from(parameter.choices)
    elif isinstance(default, bool):
        own = st.booleans()
    elif isinstance(default, int):
        own = st.integers(int(low), int(high))
    elif isinstance(default, float):
        own = st.floats(low, high)
    else:
        own = st.just(default)
    return st.one_of(own, own, own, own, anything)


def _sets(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    changeable = [p for p in NODES[kind] if not p.read_only]
    return st.lists(
        st.sampled_from(changeable), min_size=1, max_size=6, unique_by=lambda p: p.name
    ).flatmap(lambda chosen: st.fixed_dictionaries({p.name: _values(p) for p in chosen}))


def fuzz_parameters(count: int, number: int, bundle: Path, domain: int) -> Counter[str]:
    """`count` sets: given to the running nodes at once, as `ros2 param` does, and to the parts that read them."""
    counted = Counter[str]()
    voice = clips(WORDS)
    with nodes_under_fire(bundle, domain) as (graph, heard, nodes, raised, _):
        engine = nodes.nodes["emotion_node"]._engine

        def one(kind: str, values: dict[str, Any]) -> None:
            node = nodes.nodes[kind]
            result = node.set_parameters_atomically(
                [Parameter(n, value=v) for n, v in values.items()]
            )
            counted["taken" if result.successful else "refused"] += 1
            if not result.successful:
                sentence(HriEmoError(result.reason or "\n"))
            for name, value in node.parameters().items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise Unsound(f"{name} is {value}")
            try:
                checked = check(kind, values)
                if kind == "speech_node":
                    front = AudioFrontEnd(checked)
                    if counted["taken"] % 20 == 0:
                        chunks = [*front.push_samples(voice, 0), *front.flush()]
                        if not all(np.isfinite(c.samples).all() for c in chunks):
                            raise Unsound("NaN")
                else:
                    UtteranceJoiner(engine, checked, lambda outcome: None, encoder=engine)
            except HriEmoError as error:
                sentence(error)

        def example_of(kind: str) -> Any:
            def example(values: dict[str, Any]) -> None:
                one(kind, values)

            return example

        for part, kind in enumerate(nodes.nodes):
            share = count // len(nodes.nodes)
            for batch in range(0, share, 500):
                examples = min(500, share - batch)
                tried = settings(
                    max_examples=examples, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck),
                )(given(values=_sets(kind))(example_of(kind)))  # fmt: skip
                seed(number + 1000 * part + batch)(tried)()
                for name, node in nodes.nodes.items():
                    back = [p for p in NODES[name] if not p.read_only]
                    node.set_parameters_atomically(
                        [Parameter(p.name, value=p.default) for p in back]
                    )
                graph.state("speech_node")  # Takes what has come meanwhile.
                check_heard(heard, counted)
        _still_hears(graph, heard, counted)
        if raised:
            raise Unsound(f"{len(raised)} exceptions, the first: {raised[0]}")
    return counted


# -- files --------------------------------------------------------------------------------------


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut, overwritten, doubled or put in."""
    if not data:
        return rng.bytes(10)
    changed, where = bytearray(data), int(rng.integers(len(data)))
    kind = int(rng.integers(6))
    if kind == 0:
        for place in rng.integers(min(len(data), 5000), size=12):
            changed[place] = int(rng.integers(256))
    elif kind == 1:
        del changed[where:]
    elif kind == 2:
        changed[where : where + 1500] = rng.bytes(int(rng.integers(3000)))
    elif kind == 3:
        changed[where:where] = changed[where : where + int(rng.integers(1, 4000))]
    elif kind == 4:
        for place in rng.integers(len(data), size=int(rng.integers(1, 100))):
            changed[place] ^= 1 << int(rng.integers(8))
    else:
        big = rng.choice(np.array([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1], np.uint64))
        changed[where : where + 8] = int(big).to_bytes(8, "little")
    return bytes(changed)


def fuzz_bags(count: int, number: int, seeds: list[Path], folder: Path) -> Counter[str]:
    """`count` recordings, read to their end."""
    rng, counted = np.random.default_rng(number), Counter[str]()
    for turn in range(count):
        origin = seeds[turn % len(seeds)]
        file = folder / f"mutated{origin.suffix}"
        file.write_bytes(mutate(origin.read_bytes(), rng))
        try:
            with AudioBag(file) as bag:
                source = BagSource(bag, defaults("speech_node"), None, None)
                for item in source.inputs():
                    data = getattr(item, "data", None)
                    if isinstance(data, np.ndarray) and not np.isfinite(data).all():
                        raise Unsound("samples that are none")
                bag.labels()
            counted["broken off" if source.truncated else "whole"] += 1
        except HriEmoError as error:
            sentence(error)
            counted["refused"] += 1
    return counted


def fuzz_bundles(count: int, number: int, bundle: Path, folder: Path) -> Counter[str]:
    """`count` bundles; of those that load, an estimate. Half are given a new identity, and their graphs too,
    so that the hash does not refuse them first."""
    rng, counted = np.random.default_rng(number), Counter[str]()
    files = [p.name for p in sorted(bundle.iterdir()) if p.suffix in (".json", ".safetensors")]
    noise = rng.normal(0.0, 0.05, SAMPLE_RATE).astype(np.float32)
    quality = SignalQuality(20.0, -26.0, 0.0, 0.9)
    for turn in range(count):
        shutil.rmtree(folder / "bundle", ignore_errors=True)
        shutil.copytree(bundle, folder / "bundle")
        broken = folder / "bundle" / files[turn % len(files)]
        if broken.suffix == ".json" and rng.random() < 0.7:
            broken.write_text(json.dumps(_other(json.loads(broken.read_text()), rng)))
        else:
            broken.write_bytes(mutate(broken.read_bytes(), rng))
        if turn % 2:
            _name_anew(folder / "bundle")
        try:
            engine = EmotionEngine(folder / "bundle", threads=1)
            p = engine.estimate(noise, Transcript("it is time"), quality).probabilities
            if not (np.isfinite(p).all() and abs(float(p.sum()) - 1.0) < 1e-3):
                raise Unsound(f"probabilities {p} of a bundle whose {broken.name} was changed")
            counted["loaded"] += 1
        except HriEmoError as error:
            sentence(error)
            counted["refused"] += 1
    return counted


def _name_anew(folder: Path) -> None:
    try:
        document = json.loads((folder / CONFIG_FILE).read_bytes())
        name = str(document["model_id"]).rsplit("-", 1)[0]
        document["model_id"] = _identity(folder, document, name)
        document["graphs"]["model_id"] = document["model_id"]
        (folder / CONFIG_FILE).write_text(json.dumps(document))
    except Exception:
        return  # Too broken to have a name.


def _other(document: Any, rng: np.random.Generator) -> Any:
    """JSON with one value replaced, removed or put in."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = (
            node.items()
            if isinstance(node, dict)
            else enumerate(node)
            if isinstance(node, list)
            else ()
        )
        for key, value in list(items)[:200]:
            places.append((node, key))
            walk(value)

    walk(document)
    if not places:
        return None
    node, key = places[int(rng.integers(len(places)))]
    odd = [None, True, -1, 0, 1, 2**31, 2**63, 1e308, -1e-9, "", "x" * 3000, [], {}, [[]], "../../etc/passwd",
           float("nan"), float("inf"), [0.0], ["neutral", "neutral"]]  # fmt: skip
    if isinstance(node, dict) and rng.random() < 0.15:
        del node[key]
    else:
        node[key] = odd[int(rng.integers(len(odd)))]
    return document

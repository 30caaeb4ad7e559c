# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Recognisers, models and threads that hang, fail, are slow or vanish, in the real nodes over DDS."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from nodes_here import Fault, NodesHere
from rclpy.node import Node
from ros_playing import (
    Heard,
    all_listen,
    clips,
    counter,
    double,
    later,
    listen,
    play,
    restart,
    said,
    set_parameter,
)

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros.asr import moonshine, whisper
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes import diagnostics, qos, speech_node
from hri_emo_ros.nodes.asr_node import AsrNode
from hri_emo_ros.nodes.emotion_node import EmotionNode
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.nodes.speech_node import SpeechNode
from hri_emo_ros.voices.encoder import SpeakerEncoder

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

HOLD = 20.0
"""Seconds for which words are waited for; a busy machine's recogniser keeps to it."""
ASR_LIMIT, MODEL_LIMIT = 4.0, 3.0
WORDS = "lj_LJ001-0008"
"""A clip in which "surpassed" is said."""


class Faults:
    """Where faults can be put."""

    def __init__(self) -> None:
        self.asr, self.model, self.voice, self.audio = Fault(), Fault(), Fault(), Fault()

    def clear(self) -> None:
        for fault in (self.asr, self.model, self.voice, self.audio):
            fault.clear()


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    from hri_emo_ros.engine import EmotionEngine

    found, patch = Faults(), pytest.MonkeyPatch()
    for owner, name, fault in (
        (moonshine.MoonshineRecogniser, "transcribe", found.asr),
        (EmotionEngine, "estimate", found.model),
        (SpeakerEncoder, "embed", found.voice),
        (AudioFrontEnd, "push", found.audio),
    ):
        wrapped = fault.wrap(getattr(owner, name))
        # A plain function, so that it is bound like the method that it stands for.
        patch.setattr(owner, name, lambda *a, _call=wrapped, **n: _call(*a, **n))
    patch.setattr(diagnostics, "MEMORY", 2.0)  # A test need not wait longer for the next.
    yield found
    found.clear()
    patch.undo()


@pytest.fixture(scope="module")
def running(
    tiny_bundle: Path, ros_domain: int, faults: Faults
) -> Iterator[tuple[Graph, Heard, NodesHere]]:
    parameters = {
        "speech_node": {"audio.queue": 120.0, "audio.timeout": 3600.0},
        "asr_node": {"asr.backend": "moonshine", "asr.timeout": ASR_LIMIT, "asr.queue": 2},
        "emotion_node": {
            "model.bundle": str(tiny_bundle), "model.threads": 1, "model.timeout": MODEL_LIMIT,
            "final.hold": HOLD,
        },
    }  # fmt: skip
    with (
        NodesHere(ros_domain, (SpeechNode, AsrNode, EmotionNode), parameters) as nodes,
        Graph(nodes=(), domain_id=ros_domain) as graph,
    ):
        heard = listen(graph, nodes.nodes)
        nodes.start(graph)
        all_listen(graph, heard)
        yield graph, heard, nodes


@pytest.fixture
def fresh(running: tuple[Graph, Heard, NodesHere], faults: Faults) -> Iterator[None]:
    """No fault, a new stream, nothing heard yet, all nodes well."""
    graph, heard, _ = running
    faults.clear()
    for node in ("speech_node", "asr_node", "emotion_node"):
        later(graph, heard, node, lambda status: status.level == DiagnosticStatus.OK)
    restart(graph)
    heard.start_over()
    yield
    faults.clear()


def say(graph: Graph, heard: Heard, *names: str) -> list[EmotionState]:
    """Play clips; the final states of them."""
    before = len(heard.finals)
    play(graph, clips(*names), speed=4.0)
    assert graph.spin_until(lambda: len(heard.finals) >= before + len(names)), heard.statuses[-3:]
    assert len(heard.finals) == before + len(names)
    return heard.finals[before:]


@pytest.mark.fault(
    "node", "asr_node's whole process stands still, and goes on later",
    does="wait `final.hold` for words, twice at most, then not at all; use them again when they come",
    shows="final states from the voice alone; WARN that the recogniser sends no words; words again",
)  # fmt: skip
@pytest.mark.fault(
    "node", "asr_node's process is killed",
    does="not wait for words of utterances that no recogniser has taken on",
    shows="final states from the voice alone, without a wait; `transcript_status` NONE",
)  # fmt: skip
def test_the_voice_alone_speaks_while_the_recognisers_process_stands_still_or_is_gone(
    tiny_bundle: Path, ros_domain: int
) -> None:
    with Graph(
        bundle=tiny_bundle, domain_id=ros_domain,
        parameters={"emotion_node": {"final.hold": 30.0, "model.threads": 1}},
    ) as graph:  # fmt: skip
        heard = listen(graph)
        process = graph.processes["asr_node"]
        (final,) = say(graph, heard, WORDS)
        assert "surpassed" in final.transcript
        restart(graph)  # A recogniser's announcements begin anew with the stream.
        assert set_parameter(graph, "emotion_node", "final.hold", double(1.0))[0]
        process.send_signal(signal.SIGSTOP)
        finals = say(graph, heard, *["emodb_10a07Ta"] * 3)
        assert all(f.transcript_status == EmotionState.TRANSCRIPT_NONE for f in finals)
        assert all(f.text_weight == 0.0 for f in finals)
        said(graph, heard, "emotion_node", "sends no words", DiagnosticStatus.WARN)
        assert set_parameter(graph, "emotion_node", "final.hold", double(30.0))[0]
        process.send_signal(signal.SIGCONT)
        later(graph, heard, "asr_node")
        # Words are awaited again from the first on that have come, late or not.
        transcripts = [say(graph, heard, WORDS)[0].transcript for _ in range(2)]
        assert "surpassed" in transcripts[-1]
        later(graph, heard, "emotion_node", lambda s: "sends no words" not in s.message)
        process.kill()
        process.wait()
        (final,) = say(graph, heard, WORDS)
        assert (final.transcript_status, final.text_weight) == (EmotionState.TRANSCRIPT_NONE, 0.0)
        assert final.latency.waiting_for_words < 15.0


@pytest.mark.fault(
    "node", "`model.device: auto` or `whisper.device: auto`, and the GPU that is there does not work",
    does="load the model on the CPU",
    shows="WARN that names the parameter and the reason; `device` cpu; states",
)  # fmt: skip
@pytest.mark.fault(
    "node", "`model.device: cuda` without a GPU",
    does="refuse to be configured; leave nothing behind",
    shows="ERROR that names `model.device` and what works",
)  # fmt: skip
def test_without_cuda_the_cpu_works_where_that_is_allowed(
    tiny_bundle: Path, tiny_whisper: Path, ros_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr("hri_emo_ros.hardware.nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(whisper, "cuda_devices", lambda: 1)
    parameters = {
        "asr_node": {"asr.backend": "whisper", "whisper.model": str(tiny_whisper)},
        "emotion_node": {"model.bundle": str(tiny_bundle), "model.device": "auto"},
    }
    with (
        NodesHere(ros_domain, (AsrNode, EmotionNode), parameters) as nodes,
        Graph(nodes=(), domain_id=ros_domain) as graph,
    ):
        heard = listen(graph, nodes.nodes)
        nodes.start(graph)
        for node, name in (("asr_node", "whisper.device"), ("emotion_node", "model.device")):
            status = said(graph, heard, node, f"{name} is auto, and the GPU", DiagnosticStatus.WARN)
            assert counter(status, "device") == "cpu"
    monkeypatch.undo()
    if torch.cuda.is_available():
        return
    parameters["emotion_node"]["model.device"] = "cuda"
    with (
        NodesHere(ros_domain, (EmotionNode,), parameters) as nodes,
        Graph(nodes=(), domain_id=ros_domain) as graph,
    ):
        heard = listen(graph, nodes.nodes)
        with pytest.raises(HriEmoError):
            graph.transition(Transition.TRANSITION_CONFIGURE, ("emotion_node",))
        said(graph, heard, "emotion_node", "parameter 'model.device'", DiagnosticStatus.ERROR)


def test_words_are_there_when_nothing_is_wrong(
    running: tuple[Graph, Heard, NodesHere], fresh: None
) -> None:
    graph, heard, _ = running
    (final,) = say(graph, heard, WORDS)
    assert "surpassed" in final.transcript
    assert final.text_weight > 0.0


@pytest.mark.fault(
    "node", "at the start DDS finds one node that listens to `speech` seconds before the other",
    does="hold the audio back until both are found, for 5 s at most",
    shows="whoever is found late hears the first utterance from its beginning; `listeners` in `/diagnostics`",
)  # fmt: skip
def test_who_is_found_late_hears_the_first_utterance_too(
    running: tuple[Graph, Heard, NodesHere], fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, heard, nodes = running
    monkeypatch.setattr(speech_node, "FOUND", 60.0)
    monkeypatch.setattr(speech_node, "OURS", {"found_late"})
    monkeypatch.setattr(nodes.nodes["speech_node"], "_started", time.monotonic())
    play(graph, clips(WORDS), speed=8.0)
    assert counter(later(graph, heard, "speech_node"), "messages") == "0"
    late: list[Speech] = []
    node = Node("found_late", context=graph.context, start_parameter_services=False)
    node.create_subscription(Speech, "speech", late.append, qos.SPEECH)
    graph._executor.add_node(node)
    assert graph.spin_until(lambda: heard.finals and late and late[-1].last)
    assert [chunk.sequence for chunk in late] == list(range(len(late)))
    assert not heard.finals[0].beginning_lost
    assert "surpassed" in heard.finals[0].transcript
    graph._executor.remove_node(node)
    node.destroy_node()


@pytest.mark.fault(
    "node", "the recogniser hangs in native code and never returns",
    does="give the call up after `asr.timeout` and load another recogniser beside it; refuse meanwhile at once",
    shows="final states from the voice alone, `transcript_status` FAILED; ERROR; `the recogniser hung` and "
    "`made again` count; words again, without a restart",
)  # fmt: skip
def test_a_recogniser_that_hangs_is_replaced(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None
) -> None:
    graph, heard, _ = running
    threads = threading.active_count()
    faults.asr.kind = "hang"
    (final,) = say(graph, heard, WORDS)
    assert final.transcript_status == EmotionState.TRANSCRIPT_FAILED
    assert (final.text_weight, final.abstained) == (0.0, False)
    assert final.latency.waiting_for_words < HOLD
    faults.asr.kind = None  # For the next one; the first still hangs.
    status = said(graph, heard, "asr_node", "has not answered for 4 s", DiagnosticStatus.ERROR)
    later(graph, heard, "asr_node", lambda s: counter(s, "the recogniser made again") == "1")
    assert counter(status, "the recogniser hung") == "1"
    (final,) = say(graph, heard, WORDS)
    assert "surpassed" in final.transcript
    faults.clear()
    assert graph.spin_until(lambda: threading.active_count() <= threads)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            RuntimeError,
            marks=pytest.mark.fault(
                "node", "the recogniser fails at every utterance",
                does="publish the transcript as failed; load the recogniser again after two in a row",
                shows="final states from the voice alone, at once, `transcript_status` FAILED; ERROR with the reason",
            ),
        ),
        pytest.param(
            MemoryError,
            marks=pytest.mark.fault(
                "node", "the recogniser runs out of memory",
                does="the same; the old one is dropped before the new one is loaded",
                shows="final states from the voice alone; ERROR with the reason; words again when there is memory",
            ),
        ),
    ],
)  # fmt: skip
def test_a_recogniser_that_fails_is_loaded_again(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None, kind: type[Exception]
) -> None:
    graph, heard, _ = running
    made = counter(later(graph, heard, "asr_node"), "the recogniser made again")
    faults.asr.kind = kind
    finals = say(graph, heard, WORDS, "emodb_10a07Ta")
    assert [f.transcript_status for f in finals] == [EmotionState.TRANSCRIPT_FAILED] * 2
    assert all(f.text_weight == 0.0 for f in finals)
    assert all(f.latency.waiting_for_words < ASR_LIMIT for f in finals)
    said(graph, heard, "asr_node", kind.__name__, DiagnosticStatus.ERROR)
    faults.asr.kind = None
    later(graph, heard, "asr_node", lambda s: counter(s, "the recogniser made again") > made)
    (final,) = say(graph, heard, WORDS)
    assert "surpassed" in final.transcript


@pytest.mark.fault(
    "node", "the recogniser is slower than people speak",
    does="wait `final.hold` and no longer; pass over provisional work, then finish the oldest utterances as failed",
    shows="one final state for every utterance; WARN; `provisional recognitions passed over`, `failures: dropped "
    "utterances` and `without_words` count",
)  # fmt: skip
def test_a_slow_recogniser_loses_words_and_no_utterance(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None
) -> None:
    graph, heard, _ = running
    assert set_parameter(graph, "asr_node", "asr.timeout", double(60.0))[0]
    assert set_parameter(graph, "emotion_node", "final.hold", double(0.5))[0]
    faults.asr.kind, faults.asr.seconds = "slow", 30.0
    finals = say(graph, heard, *["emodb_10a07Ta"] * 6)
    assert [f.utterance_id for f in finals] == [1, 2, 3, 4, 5, 6]
    assert all(f.text_weight == 0.0 for f in finals)
    said(graph, heard, "asr_node", "the recogniser is too slow", DiagnosticStatus.WARN)
    faults.clear()
    status = later(graph, heard, "asr_node", lambda s: counter(s, "utterances waiting") == "0")
    assert int(counter(status, "failures: dropped utterances")) >= 2
    assert int(counter(status, "provisional recognitions passed over")) >= 1
    status = later(graph, heard, "emotion_node")
    assert int(counter(status, "without_words")) >= 1
    assert set_parameter(graph, "asr_node", "asr.timeout", double(ASR_LIMIT))[0]
    assert set_parameter(graph, "emotion_node", "final.hold", double(HOLD))[0]
    (final,) = say(graph, heard, WORDS)
    assert "surpassed" in final.transcript


@pytest.mark.fault(
    "node", "the model hangs in native code and never returns",
    does="give the call up after `model.timeout`, abstain: ERROR; load another model beside it",
    shows="a final state in time with the reason in `abstain_text`; ERROR; `the model hung` and `made again` count; "
    "estimates again, without a restart",
)  # fmt: skip
def test_a_model_that_hangs_is_replaced(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None
) -> None:
    graph, heard, _ = running
    faults.model.kind = "hang"
    (final,) = say(graph, heard, WORDS)
    assert final.abstain_reason == EmotionState.ABSTAIN_ERROR
    assert final.latency.total < 2 * MODEL_LIMIT + HOLD
    faults.model.kind = None
    said(graph, heard, "emotion_node", "has not answered for 3 s", DiagnosticStatus.ERROR)
    status = later(
        graph, heard, "emotion_node", lambda s: counter(s, "the model made again") == "1"
    )
    assert counter(status, "the model hung") == "1"
    (final,) = say(graph, heard, WORDS)
    assert (final.abstained, "surpassed" in final.transcript) == (False, True)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            RuntimeError,
            marks=pytest.mark.fault(
                "node", "the model fails at every utterance (a GPU that is lost)",
                does="abstain: ERROR; load the model again after two in a row",
                shows="a final state for every utterance; ERROR with the reason; estimates again by themselves",
            ),
        ),
        pytest.param(
            MemoryError,
            marks=pytest.mark.fault(
                "node", "the model runs out of memory",
                does="the same; the old one is dropped before the new one is loaded",
                shows="a final state for every utterance; ERROR with the reason; estimates again by themselves",
            ),
        ),
    ],
)  # fmt: skip
def test_a_model_that_fails_is_loaded_again(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None, kind: type[Exception]
) -> None:
    graph, heard, _ = running
    made = counter(later(graph, heard, "emotion_node"), "the model made again")
    faults.model.kind = kind
    finals = say(graph, heard, "emodb_10a07Ta", "emodb_11a02Wc")
    assert [f.abstain_reason for f in finals] == [EmotionState.ABSTAIN_ERROR] * 2
    said(graph, heard, "emotion_node", kind.__name__, DiagnosticStatus.ERROR)
    faults.model.kind = None
    later(graph, heard, "emotion_node", lambda s: counter(s, "the model made again") > made)
    (final,) = say(graph, heard, "emodb_10a07Ta")
    assert not final.abstained


@pytest.mark.fault(
    "node", "the network that tells voices apart hangs",
    does="give it up with the model after `model.timeout` and load both again",
    shows="a final state in time; ERROR; voices and estimates again by themselves",
)  # fmt: skip
def test_a_speaker_encoder_that_hangs_is_replaced(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None
) -> None:
    graph, heard, _ = running
    faults.voice.kind = "hang"
    (final,) = say(graph, heard, "emodb_10a07Ta")
    assert final.voice_id == ""
    faults.voice.kind = None
    said(graph, heard, "emotion_node", "has not answered for 3 s", DiagnosticStatus.ERROR)
    later(graph, heard, "emotion_node", lambda s: s.level == DiagnosticStatus.OK)
    (final,) = say(graph, heard, "emodb_10a07Ta")
    assert not final.abstained


@pytest.mark.fault(
    "node", "the model is slower than people speak",
    does="leave out provisional states that are late by more than `provisional.period`, never a final one",
    shows="one final state for every utterance, in order; `provisionals_skipped` counts",
)  # fmt: skip
def test_a_slow_model_leaves_out_provisional_states_and_no_final_one(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None
) -> None:
    graph, heard, _ = running
    faults.model.kind, faults.model.seconds = "slow", 1.0
    finals = say(graph, heard, WORDS, "jfk_1961", WORDS)
    assert [f.utterance_id for f in finals] == [1, 2, 3]
    assert not any(f.abstain_reason == EmotionState.ABSTAIN_ERROR for f in finals)
    status = later(graph, heard, "emotion_node")
    assert int(counter(status, "provisionals_skipped")) >= 1


@pytest.mark.fault(
    "node", "the thread that works in a node is gone (each of the three)",
    does="start another one within a second; what waited is worked off",
    shows="ERROR for 10 s; `failures: worker` counts; states as ever",
)  # fmt: skip
@pytest.mark.parametrize("node", ["speech_node", "asr_node", "emotion_node"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_worker_is_an_error_and_a_recovery(
    running: tuple[Graph, Heard, NodesHere], fresh: None, node: str
) -> None:
    graph, heard, nodes = running
    thread = nodes.nodes[node]._worker._thread
    # An exception out of nowhere, between two items, where nothing catches it.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )
    worker = nodes.nodes[node]._worker
    with worker._changed:
        worker._changed.notify()
    status = said(graph, heard, node, "thread was gone: started again", DiagnosticStatus.ERROR)
    assert int(counter(status, "failures: worker")) == 1
    assert not thread.is_alive()
    (final,) = say(graph, heard, WORDS)
    assert "surpassed" in final.transcript


@pytest.mark.fault(
    "node", "a worker hangs where nothing else watches (the voice detector)",
    does="keep the newest `audio.queue` of sound, drop and count what is older",
    shows="ERROR that it hangs; when it returns, states again",
)  # fmt: skip
def test_a_worker_that_hangs_is_an_error(
    running: tuple[Graph, Heard, NodesHere], faults: Faults, fresh: None
) -> None:
    graph, heard, _ = running
    faults.audio.kind = "hang"
    play(graph, clips("emodb_10a07Ta"), speed=4.0)
    said(graph, heard, "speech_node", "it hangs", DiagnosticStatus.ERROR)
    faults.clear()
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    later(graph, heard, "speech_node", lambda s: s.level == DiagnosticStatus.OK)

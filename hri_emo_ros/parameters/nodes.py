# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node, declared once."""

from __future__ import annotations

from hri_emo_ros.parameters.parameter import Parameter

P = Parameter
SAMPLE_FORMATS = (
    "U8",
    "S8",
    "S16LE",
    "S16BE",
    "S24LE",
    "S24BE",
    "S24_32LE",
    "S24_32BE",
    "S32LE",
    "S32BE",
    "F32LE",
    "F32BE",
    "F64LE",
    "F64BE",
    "ALAW",
    "MULAW",
)

ASR_BACKENDS = ("auto", "moonshine", "whisper", "none")

SPEECH_NODE: tuple[Parameter, ...] = (
    P(
        "audio.message_type",
        "auto",
        "Type on the audio topic; auto asks the graph.",
        choices=("auto", "AudioData", "AudioDataStamped", "AudioStamped"),
        read_only=True,
    ),
    P(
        "audio.use_info",
        True,
        "Let AudioInfo on the audio_info topic override rate, channels and format.",
    ),
    P(
        "audio.sample_rate",
        16000,
        "Rate of the PCM when no AudioInfo says otherwise, Hz.",
        4000,
        192000,
    ),
    P("audio.channels", 1, "Interleaved channels when no AudioInfo says otherwise.", 1, 32),
    P(
        "audio.sample_format",
        "S16LE",
        "PCM encoding when no AudioInfo says otherwise (S24_32: 24 bits in the lower three of 4 bytes).",
        choices=SAMPLE_FORMATS,
    ),
    P(
        "audio.channel",
        -1,
        "Channel to listen to, counted from 0; -1 takes the mean of two, of more the first.",
        -1,
        31,
    ),
    P("audio.frame_id", "microphone", "Frame of unstamped audio."),
    P(
        "audio.timeout",
        3.0,
        "Silence of the topic after which diagnostics turn to ERROR, s.",
        0.1,
        3600.0,
    ),
    P(
        "audio.queue",
        10.0,
        "Audio held while the worker is busy, s; what exceeds it is dropped and counted.",
        0.5,
        120.0,
        read_only=True,
    ),
    P("vad.threshold", 0.4, "Speech probability at which an utterance starts.", 0.01, 0.99),
    P(
        "vad.release_threshold",
        0.25,
        "Speech probability below which a frame counts as pause.",
        0.01,
        0.99,
    ),
    P("segment.min_speech", 0.25, "Speech needed before an utterance starts, s.", 0.03, 5.0),
    P("segment.pause", 0.6, "Pause that ends an utterance, s.", 0.1, 5.0),
    P(
        "segment.max_length",
        15.0,
        "Longest utterance, s; longer speech is cut and marked truncated.",
        1.0,
        120.0,
    ),
    P("segment.pre_roll", 0.3, "Audio kept before the first speech frame, s.", 0.0, 2.0),
    P(
        "segment.endpoint",
        0.16,
        "Non-speech after which speech seems to have ended, s: recognition and a provisional state start "
        "then; at or above segment.pause they wait for the pause.",
        0.03,
        5.0,
    ),
    P(
        "segment.hang_over",
        0.16,
        "Audio kept after the last speech frame, s (at most segment.endpoint and segment.pause).",
        0.0,
        5.0,
    ),
    P(
        "segment.chunk",
        0.25,
        "Length of the Speech chunks published while the person speaks, s.",
        0.032,
        5.0,
    ),
    P("robot_speaking.mute", True, "Discard what is heard while robot_speaking is true."),
    P(
        "robot_speaking.tail",
        0.3,
        "Time after the robot stops in which its echo is still discarded, s.",
        0.0,
        5.0,
    ),
    P(
        "robot_speaking.limit",
        60.0,
        "Time for which robot_speaking may stay true before diagnostics turn to WARN, s.",
        1.0,
        3600.0,
    ),
)

ASR_NODE: tuple[Parameter, ...] = (
    P(
        "asr.backend",
        "auto",
        "Recogniser; auto takes whisper when whisper.model is set, or an installed model and CUDA are "
        "there, else moonshine.",
        choices=ASR_BACKENDS,
        read_only=True,
    ),
    P(
        "asr.min_confidence",
        0.7,
        "Transcripts below this confidence are refused: published as rejected, not used.",
        0.0,
        1.0,
    ),
    P(
        "asr.min_speech_fraction",
        0.1,
        "Utterances with a smaller share of VAD speech frames are not recognised "
        "(recognisers invent words for silence).",
        0.0,
        1.0,
    ),
    P(
        "asr.queue",
        8,
        "Utterances waiting for the recogniser; the oldest beyond it is dropped and counted.",
        1,
        1000,
        read_only=True,
    ),
    P(
        "asr.timeout",
        20.0,
        "Time that recognising one utterance may take, s; what takes longer hangs: it is given up, and the "
        "recogniser loaded again.",
        1.0,
        600.0,
    ),
    P(
        "asr.threads",
        0,
        "CPU threads of the recogniser; 0 takes all cores but one.",
        0,
        256,
        read_only=True,
    ),
    P(
        "publish_transcript",
        True,
        "Publish the words on transcript; off hands them to emotion_node in the same process alone "
        "(single_process) and publishes none.",
        read_only=True,
    ),
    P(
        "moonshine.model",
        "",
        "Folder of Moonshine's tiny.en model; empty takes the installed package's.",
        read_only=True,
    ),
    P(
        "whisper.model",
        "",
        "faster-whisper model folder or size name (an installed package's, else only with "
        "whisper.allow_download); empty takes an installed package's.",
        read_only=True,
    ),
    P(
        "whisper.allow_download",
        False,
        "Allow fetching a model by size name from the model hub.",
        read_only=True,
    ),
    P(
        "whisper.device",
        "auto",
        "Device of Whisper.",
        choices=("auto", "cpu", "cuda"),
        read_only=True,
    ),
    P(
        "whisper.compute_type",
        "auto",
        "Arithmetic of Whisper; auto is int8 on a CPU and what the model was saved in on a GPU.",
        choices=(
            "auto",
            "int8",
            "int8_float16",
            "int8_float32",
            "int16",
            "float16",
            "bfloat16",
            "float32",
        ),
        read_only=True,
    ),
    P("whisper.language", "", "ISO 639-1 language; empty detects it for each utterance."),
    P("whisper.beam_size", 1, "Beams; 1 is greedy and fastest.", 1, 20),
    P(
        "whisper.no_speech_threshold",
        0.6,
        "Segments with a higher no-speech probability are left out.",
        0.0,
        1.0,
    ),
)

EMOTION_NODE: tuple[Parameter, ...] = (
    P(
        "model.bundle",
        "",
        "Model bundle: a folder, or a name under the package's models; empty is the shipped "
        "compact model.",
        read_only=True,
    ),
    P(
        "model.device",
        "cpu",
        "Device of the model.",
        choices=("auto", "cpu", "cuda"),
        read_only=True,
    ),
    P(
        "model.runtime",
        "auto",
        "What executes the network: onnx (ONNX Runtime, on the CPU, from graphs that `hri-emo export` wrote "
        "into the bundle), torch, or auto: onnx where it can.",
        choices=("auto", "onnx", "torch"),
        read_only=True,
    ),
    P(
        "model.threads",
        0,
        "CPU threads of the model; 0 takes all cores but one.",
        0,
        256,
        read_only=True,
    ),
    P(
        "model.timeout",
        5.0,
        "Time that one estimate may take, s; what takes longer hangs: the utterance abstains, and the model is "
        "loaded again.",
        0.5,
        600.0,
    ),
    P(
        "transcript.source",
        "transcript",
        "Where words come from: Transcript, std_msgs/String or hri_msgs/LiveSpeech on the transcript topic, or "
        "nowhere.",
        choices=("transcript", "string", "live_speech", "none"),
        read_only=True,
    ),
    P(
        "publish_transcript",
        True,
        "Publish the words in states and explanations; off uses them and publishes none.",
        read_only=True,
    ),
    P(
        "final.hold",
        3.0,
        "Longest wait for the words after the end of speech, s; then voice alone speaks.",
        0.0,
        30.0,
    ),
    P(
        "context.turns",
        3,
        "Earlier turns of the conversation that the words are read with, at most; a model reads as many as "
        "it has learnt to.",
        0,
        8,
    ),
    P("context.max_age", 60.0, "Turns that ended longer ago are no context, s.", 0.0, 3600.0),
    P("provisional.enabled", True, "Publish provisional states while the person still speaks."),
    P("provisional.period", 1.0, "Speech between provisional states, s.", 0.1, 30.0),
    P("abstain.min_speech", 0.3, "Shorter utterances abstain (too short), s.", 0.0, 10.0),
    P(
        "abstain.max_clipped",
        0.1,
        "A larger share of clipped samples abstains (clipped).",
        0.0,
        1.0,
    ),
    P(
        "abstain.min_snr",
        -10.0,
        "A lower signal-to-noise ratio abstains (too noisy) when there are no words, dB.",
        -100.0,
        60.0,
    ),
    P(
        "abstain.min_confidence",
        0.0,
        "A lower top probability abstains (low confidence); 0 takes the bundle's own.",
        0.0,
        1.0,
    ),
    P(
        "conversation.window",
        30.0,
        "Stretch of conversation that conversation_emotion speaks of, s.",
        5.0,
        3600.0,
    ),
    P("explanation.enabled", False, "Publish an EmotionExplanation with every final state."),
    P(
        "voices.enabled",
        True,
        "Tell voices apart and judge each by how it usually sounds; off forgets them.",
    ),
    P("voices.max", 16, "Voices kept; of more, the one heard longest ago is forgotten.", 1, 64),
    P(
        "voices.forget_after",
        0.0,
        "Time without a word after which a voice is forgotten, h; 0 never.",
        0.0,
        100000.0,
    ),
    P(
        "voices.profiles",
        "",
        "File that keeps the voices for the next start (statistics and an embedding of each, no audio); "
        "empty writes nothing.",
        read_only=True,
    ),
    P(
        "utterance.queue",
        16,
        "Utterances in work; the oldest beyond it is finished without words.",
        1,
        1000,
        read_only=True,
    ),
)

AUDIO_PLAYER: tuple[Parameter, ...] = (
    P("player.files", [""], "WAV or FLAC files to play, in order.", read_only=True),
    P(
        "player.microphone",
        "",
        "Sound device (name or number) to play instead of files; 'default' is the system's.",
        read_only=True,
    ),
    P(
        "player.speed",
        1.0,
        "Playback speed as a multiple of real time; 0 is as fast as possible.",
        0.0,
        1000.0,
    ),
    P("player.chunk_ms", 20, "Length of a published chunk, ms.", 1, 1000, read_only=True),
    P(
        "player.message_type",
        "AudioDataStamped",
        "Type to publish.",
        choices=("AudioData", "AudioDataStamped"),
        read_only=True,
    ),
    P(
        "player.sample_rate",
        0,
        "Rate to publish, Hz; 0 keeps the file's.",
        0,
        192000,
        read_only=True,
    ),
    P("player.channels", 0, "Channels to publish; 0 keeps the file's.", 0, 32, read_only=True),
    P("player.gap", 1.0, "Silence between files and at the end, s.", 0.0, 60.0),
    P("player.loop", False, "Start again at the end."),
    P(
        "player.wait_for_subscribers",
        10.0,
        "Longest wait for a subscriber before playing, s.",
        0.0,
        600.0,
    ),
    P("player.frame_id", "microphone", "Frame of the published audio."),
)

ROS4HRI_BRIDGE: tuple[Parameter, ...] = (
    P(
        "tracked.timeout",
        30.0,
        "Silence after which a voice is no longer in /humans/voices/tracked, s.",
        1.0,
        3600.0,
    ),
)

NODES: dict[str, tuple[Parameter, ...]] = {
    "speech_node": SPEECH_NODE,
    "asr_node": ASR_NODE,
    "emotion_node": EMOTION_NODE,
    "audio_player": AUDIO_PLAYER,
    "ros4hri_bridge": ROS4HRI_BRIDGE,
}

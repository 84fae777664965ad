"""Speech with exact phoneme times from the free synthesiser espeak-ng, called through ctypes.

espeak-ng reports each phoneme with its position in the sound, so drawn faces get perfect lip labels for any text
in some hundred languages. It is found, in this order, as the library named by LETSTALK_ESPEAK_LIBRARY, as an
installed system library, beside the `espeak-ng` program, or in the Python package `espeakng_loader`.

Sound from the same text repeats in pitch, timing (to about a millisecond) and phonemes, but not bit for bit:
espeak-ng carries noise and phase from one call to the next. The same calls in the same order in a fresh process do
repeat.
Source: espeak-ng's `speak_lib.h` (interface), docs/demo-model.md, Drawn faces.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
import shutil
import sys
import threading
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError, DependencyError
from letstalk_core.files import atomic_path
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

SILENCE = ""  # the symbol of a pause
LIBRARY_VARIABLE = "LETSTALK_ESPEAK_LIBRARY"
GLITCH_SECONDS = 0.06  # shorter unnamed events are glottal or palatal glides, which have no IPA sign, not pauses
REMEDY = (
    "install espeak-ng ('sudo apt install espeak-ng', 'brew install espeak-ng' or"
    f" 'winget install eSpeak-NG.eSpeak-NG'), or 'pip install espeakng-loader', or set {LIBRARY_VARIABLE} to the"
    " path of libespeak-ng"
)


@dataclass(frozen=True)
class Phoneme:
    """One sound of an utterance: its IPA symbol without stress marks ("" is a pause) and its span in seconds."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Utterance:
    """Speech and its phonemes, which follow one another without gaps from 0 to the end of the sound.

    Shapes: waveform (s,) float32 in -1..1 at 16 kHz.
    """

    waveform: NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]
    voice: str = ""
    text: str = ""

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE_HZ

    def scaled(self, gain: float) -> Utterance:
        """The same speech louder or softer; the gain is reduced where the peak would pass 0.99."""
        peak = float(np.abs(self.waveform).max(initial=0.0)) * gain
        wave = (self.waveform * (gain * min(1.0, 0.99 / max(peak, 1e-9)))).astype(np.float32)
        return Utterance(wave, self.phonemes, self.voice, self.text)


def silence(seconds: float) -> Utterance:
    """An utterance of nothing but a pause, a whole number of samples long."""
    samples = max(0, round(seconds * SAMPLE_RATE_HZ))
    phonemes = (Phoneme(SILENCE, 0.0, samples / SAMPLE_RATE_HZ),) if samples else ()
    return Utterance(np.zeros(samples, np.float32), phonemes)


def join(parts: Sequence[Utterance]) -> Utterance:
    """Utterances one after another; neighbouring pauses become one."""
    phonemes: list[Phoneme] = []
    start = 0.0
    for part in parts:
        for p in part.phonemes:
            append_phoneme(phonemes, p.symbol, start + p.start_s, start + p.end_s)
        start += part.seconds
    wave = np.concatenate([p.waveform for p in parts]) if parts else np.zeros(0, np.float32)
    voice = next((p.voice for p in parts if p.voice), "")
    return Utterance(wave, tuple(phonemes), voice, " ".join(p.text for p in parts if p.text))


def synthesise(
    text: str, voice: str, *, rate: float = 165.0, pitch: float = 50.0, pitch_range: float = 50.0
) -> Utterance:
    """Speak a text.

    `voice` is an espeak-ng voice, with a variant if wanted ("en-us+f3"); `rate` is in words per minute (80..450),
    `pitch` and `pitch_range` are espeak-ng's 0..100. Safe to call from several threads, which then take turns, and
    in processes forked before or after the first call.
    Raises: DependencyError without espeak-ng; ConfigError for a voice it does not know or a text without speech.
    """
    engine = _engine()
    with _LOCK:
        raw, events = engine.speak(text, voice, rate, pitch, pitch_range)
    if not len(raw) or not any(symbol for _, symbol in events):
        raise ConfigError(f"espeak-ng found nothing to say in text={text[:40]!r} with voice={voice!r}")
    wave = _resample(raw.astype(np.float32) / 32768.0, engine.sample_rate_hz)
    end_s = len(wave) / SAMPLE_RATE_HZ
    starts = [min(sample / engine.sample_rate_hz, end_s) for sample, _ in events]
    phonemes: list[Phoneme] = []
    append_phoneme(phonemes, SILENCE, 0.0, starts[0])
    for (_, symbol), start, end in zip(events, starts, [*starts[1:], end_s], strict=True):
        previous = phonemes[-1].symbol if phonemes else SILENCE
        glide = symbol == SILENCE and previous != SILENCE and end - start < GLITCH_SECONDS and end < end_s
        if glide:
            phonemes[-1] = Phoneme(previous, phonemes[-1].start_s, end)
        else:
            append_phoneme(phonemes, symbol, start, end)
    return Utterance(wave, tuple(phonemes), voice, text)


def write_wav(path: Path, waveform: NDArray[np.float32]) -> None:
    """Samples (n,) in [-1, 1] at SAMPLE_RATE_HZ as a WAV file. Raises: OutputError."""
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((waveform * 32767).astype("<i2").tobytes())


def espeak_version() -> str:
    """Version of the espeak-ng in use. Raises: DependencyError."""
    return _engine().version


def append_phoneme(phonemes: list[Phoneme], symbol: str, start: float, end: float, *, go_on: bool = False) -> None:
    """Append a span, if it is one. Pauses go on in the next, with `go_on` all spans of the same symbol."""
    if end <= start:
        return
    if phonemes and phonemes[-1].symbol == symbol and (go_on or symbol == SILENCE):
        start = phonemes.pop().start_s
    phonemes.append(Phoneme(symbol, start, end))


def _resample(wave: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    if rate_hz == SAMPLE_RATE_HZ:
        return wave
    from torchaudio.functional import resample

    resampled: NDArray[np.float32] = resample(torch.from_numpy(wave), rate_hz, SAMPLE_RATE_HZ).numpy()
    return resampled


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_EVENT_END, _EVENT_PHONEME = 0, 7
_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE = 0x1 | 0x2 | 0x8000  # phoneme events, as IPA, and no exit() of the whole process when data is missing
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_CHARS_UTF8 = 1
_STRESS_MARKS = str.maketrans("", "", "ˈˌ'")
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Engine:
    """The one espeak-ng of this process: the library keeps all its state in globals."""

    def __init__(self, library: Any, data_path: str | None, origin: str) -> None:
        self._library = library
        self._chunks: list[NDArray[np.int16]] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._collect)  # kept here: ctypes does not hold it for the library
        library.espeak_Info.restype = ctypes.c_char_p
        library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        path = None if data_path is None else os.fsencode(data_path)
        self.sample_rate_hz = int(library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, path, _INITIALIZE))
        if self.sample_rate_hz <= 0:
            raise DependencyError(f"espeak-ng from {origin} does not start; is its data folder missing? {REMEDY}")
        library.espeak_SetSynthCallback(self._callback)
        self.version = (library.espeak_Info(None) or b"").decode(errors="replace").split(" ")[0]

    def _collect(self, wave: Any, samples: int, events: Any) -> int:
        if wave and samples > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        for event in itertools.takewhile(lambda e: e.type != _EVENT_END, (events[i] for i in itertools.count())):
            if event.type == _EVENT_PHONEME:
                symbol = bytes(event.id.string).split(b"\0")[0].decode(errors="ignore")
                foreign = symbol.startswith("(")  # "(en)" and the like announce words of another language
                self._events.append((int(event.sample), SILENCE if foreign else symbol.translate(_STRESS_MARKS)))
        return 0

    def speak(
        self, text: str, voice: str, rate: float, pitch: float, pitch_range: float
    ) -> tuple[NDArray[np.int16], list[tuple[int, str]]]:
        """Sound (s,) at the library's rate, and (sample, symbol) of each phoneme."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ConfigError(f"espeak-ng {self.version} has no voice={voice!r}; 'espeak-ng --voices' lists them")
        for parameter, value in (
            (_PARAMETER_RATE, rate),
            (_PARAMETER_PITCH, pitch),
            (_PARAMETER_RANGE, pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, round(value), 0)
        self._chunks.clear()
        self._events.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        wave = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return wave, list(self._events)


_LOCK = threading.RLock()
_ENGINE: _Engine | None = None


def _engine() -> _Engine:
    global _ENGINE
    with _LOCK:
        if _ENGINE is None:
            _ENGINE = _Engine(*_load_library())
        return _ENGINE


def _load_library() -> tuple[Any, str | None, str]:
    """The library, its data folder when it does not know it itself, and its origin. Raises: DependencyError."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        try:
            return ctypes.CDLL(named), None, named
        except OSError as error:
            raise DependencyError(f"{LIBRARY_VARIABLE}={named!r} cannot be loaded ({error}); {REMEDY}") from None
    for candidate in dict.fromkeys(_system_candidates()):
        try:
            return ctypes.CDLL(candidate), None, candidate
        except OSError:
            continue
    try:
        import espeakng_loader

        path = str(espeakng_loader.get_library_path())
        return ctypes.CDLL(path), str(espeakng_loader.get_data_path()), path
    except (ImportError, OSError, RuntimeError):
        raise DependencyError(f"espeak-ng is needed to make speech and was not found; {REMEDY}") from None


def _system_candidates() -> Iterator[str]:
    found = ctypes.util.find_library("espeak-ng") or ctypes.util.find_library("libespeak-ng")
    if found:
        yield found
    names = {
        "win32": ("libespeak-ng.dll", "espeak-ng.dll"),
        "darwin": ("libespeak-ng.1.dylib", "libespeak-ng.dylib"),
    }
    sonames = names.get(sys.platform, ("libespeak-ng.so.1", "libespeak-ng.so"))
    yield from sonames
    folders = [Path("/opt/homebrew/lib"), Path("/usr/local/lib")]
    if sys.platform == "win32":
        folders = [Path(os.environ.get("ProgramFiles", "C:/Program Files")) / "eSpeak NG"]
    program = shutil.which("espeak-ng")
    if program:
        here = Path(program).resolve().parent
        folders += [here, here.parent / "lib"]
    yield from (str(folder / name) for folder in folders for name in sonames if (folder / name).is_file())

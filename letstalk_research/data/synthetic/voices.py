"""More voices than espeak-ng's: flite and festival, both with the times of their phones.

Both are run as programs of the system. The same text in the same voice gives the same sound, bit for bit.
Sources: `flite --help` (-psdur prints phones with their ends); festival's manual, Utterance I/O (utt.save.segs).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError, DependencyError
from letstalk_core.media.audio.decode import load_waveform

from .phone_sets import ARPABET, ITALIAN, labelled_utterance
from .speech import Utterance

ENGINES = ("flite", "festival")
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Voice:
    """A voice of an engine. `speaker` is whose recordings it is made of: held-out speakers never train."""

    engine: str
    name: str
    speaker: str
    language: str
    held_out: bool = False

    def __str__(self) -> str:
        return f"{self.engine}:{self.name}"


VOICES = (
    Voice("flite", "kal16", "kal", "en"),
    Voice("flite", "rms", "rms", "en"),
    Voice("flite", "slt", "slt", "en"),
    Voice("flite", "awb", "awb", "en", held_out=True),
    Voice("festival", "kal_diphone", "kal", "en"),
    Voice("festival", "ked_diphone", "ked", "en"),
    Voice("festival", "cmu_us_slt_arctic_hts", "slt", "en"),
    Voice("festival", "lp_diphone", "lp", "it"),
    Voice("festival", "pc_diphone", "pc", "it", held_out=True),
)
PACKAGES = {"flite": "flite", "festival": "festival festvox-kallpc16k festvox-us-slt-hts festvox-italp16k"}


def available_voices(engines: tuple[str, ...] = ENGINES) -> list[Voice]:
    """The known voices that this machine has, of these engines. Raises: ConfigError, DependencyError."""
    found = []
    for engine in engines:
        if engine not in ENGINES:
            raise ConfigError(f"engine {engine!r} must be one of {ENGINES}")
        listing = "-lv" if engine == "flite" else "(print (voice.list))"
        command = [_program(engine), *(("-b",) if engine == "festival" else ()), listing]
        names = set(_run(command).replace("(", " ").replace(")", " ").split())
        found += [v for v in VOICES if v.engine == engine and v.name in names]
    return found


def speak(text: str, voice: Voice, *, stretch: float = 1.0) -> Utterance:
    """Speak a text; `stretch` > 1 is slower. Raises: DependencyError without the engine; ConfigError."""
    if not 0.3 <= stretch <= 3.0:
        raise ConfigError(f"stretch={stretch} must be in 0.3..3")
    if not text.strip():
        raise ConfigError(f"text={text!r} has nothing to say")
    program = _program(voice.engine)
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "speech.wav"
        make = _flite if voice.engine == "flite" else _festival
        phones = make(program, text, voice.name, stretch, sound)
        if not sound.is_file():
            raise ConfigError(f"{voice.engine} has no voice {voice.name!r}, or nothing to say in {text[:40]!r}")
        waveform: NDArray[np.float32] = load_waveform(sound).numpy()
    table = ITALIAN if voice.language == "it" else ARPABET
    return labelled_utterance(waveform, _spans(phones, table, voice), voice=str(voice), text=text)


def _flite(program: str, text: str, name: str, stretch: float, sound: Path) -> list[tuple[str, float]]:
    duration = ("--setf", f"duration_stretch={stretch:.4f}")
    out = _run([program, "-voice", name, *duration, "-psdur", "-t", text, "-o", str(sound)])
    pairs = (item.rsplit(":", 1) for item in out.split() if ":" in item)
    return [(name, float(end)) for name, end in pairs]


def _festival(program: str, text: str, name: str, stretch: float, sound: Path) -> list[tuple[str, float]]:
    labels, script = sound.with_suffix(".lab"), sound.with_suffix(".scm")
    quoted = text.replace("\\", " ").replace('"', " ")
    script.write_text(
        f"(voice_{name})\n(Parameter.set 'Duration_Stretch {stretch:.4f})\n"
        f'(set! u (SynthText "{quoted}"))\n(utt.save.segs u "{labels}")\n(utt.save.wave u "{sound}" \'riff)\n',
        encoding="latin-1",
        errors="replace",
    )
    _run([program, "-b", str(script)])
    lines = labels.read_text(encoding="latin-1").splitlines() if labels.is_file() else []
    fields = (line.split() for line in lines)
    return [(f[2], float(f[0])) for f in fields if len(f) >= 3]


def _spans(
    phones: list[tuple[str, float]], table: Mapping[str, str], voice: Voice
) -> list[tuple[str, float, float]]:
    """(IPA, start, end) from (name, end)."""
    starts = [0.0, *(end for _, end in phones)]
    unknown = sorted({name for name, _ in phones} - set(table))
    if unknown:
        raise ConfigError(f"{voice} speaks of phones without a mouth shape: {unknown[:5]}")
    return [(table[name], start, end) for (name, end), start in zip(phones, starts, strict=False)]


def _program(engine: str) -> str:
    program = shutil.which(engine)
    if program is None:
        remedy = f"'sudo apt install {PACKAGES[engine]}', or leave it out of the engines"
        raise DependencyError(f"{engine} was asked to speak and is not installed; {remedy}")
    return program


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{command[0]} did not answer within {TIMEOUT_SECONDS} s") from None
    return done.stdout.decode("latin-1")

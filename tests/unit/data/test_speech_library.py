"""Recordings and engines beside espeak-ng: phone times, variation, the library, and what happens without them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from letstalk_core.errors import ConfigError, DependencyError, MediaError
from letstalk_research.data.synthetic import forced_alignment, speech_library
from letstalk_research.data.synthetic import recordings as recordings_module
from letstalk_research.data.synthetic import voices as voices_module
from letstalk_research.data.synthetic.forced_alignment import align, with_pauses
from letstalk_research.data.synthetic.phone_sets import ARPABET, ITALIAN, labelled_utterance
from letstalk_research.data.synthetic.recordings import cut_at_pauses, read_recordings
from letstalk_research.data.synthetic.speech import Phoneme, Utterance, join, silence, synthesise, write_wav
from letstalk_research.data.synthetic.speech_library import SpeechLibrary, mixture, prepared
from letstalk_research.data.synthetic.visemes import viseme_curves, viseme_targets
from letstalk_research.data.synthetic.voices import VOICES, Voice, available_voices, speak

RATE = 16_000


def noise(seconds: float, level: float = 0.3, seed: int = 0) -> np.ndarray:
    samples = round(seconds * RATE)
    return (level * np.random.default_rng(seed).standard_normal(samples).clip(-3, 3)).astype(np.float32)


def bursts(voice: str = "reader", text: str = "ah ah") -> Utterance:
    """0.4 s pause, 0.5 s vowel, 0.6 s pause, 0.5 s vowel, 0.2 s pause; vowels are a tone."""
    vowel = (0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE // 2) / RATE)).astype(np.float32)
    said = Utterance(vowel, (Phoneme("a", 0.0, 0.5),), voice, text)
    return join([silence(0.4), said, silence(0.6), said, silence(0.2)])


def edges(utterance: Utterance, rate: float = 0.1) -> list[float]:
    """Seconds at which a tone begins and ends."""
    loud = np.convolve(utterance.waveform**2, np.ones(320) / 320, "same")
    on = np.concatenate([[False], loud > rate * loud.max(), [False]])
    return (np.flatnonzero(on[1:] != on[:-1]) / RATE).tolist()


def assert_vowels_in_time(utterance: Utterance, within: float = 0.01) -> None:
    """Tones begin and end where the phonemes say; seconds."""
    vowels = [t for p in utterance.phonemes if p.symbol for t in (p.start_s, p.end_s)]
    assert edges(utterance) == pytest.approx(vowels, abs=within)


def assert_covered(utterance: Utterance) -> None:
    spans = [(p.start_s, p.end_s) for p in utterance.phonemes]
    assert spans[0][0] == 0.0 and spans[-1][1] == pytest.approx(utterance.seconds, abs=1e-4)
    assert all(a[1] == pytest.approx(b[0]) for a, b in zip(spans, spans[1:], strict=False))
    assert all(end > start for start, end in spans)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven recordings of the same bursts; the seventh names its reader and split."""
    lines = [f"s{i}|number {i}" for i in range(6)] + ["s6.wav|6|number six|Ann|held_out"]
    for i in range(7):
        write_wav(tmp_path / "book" / ("wavs" if i % 2 else ".") / f"s{i}.wav", bursts().waveform)
    (tmp_path / "book" / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "book"


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aligns by knowing the answer; `number 3` is said to be another text."""

    def know(waveform: np.ndarray, text: str, *, voice: str = "") -> Utterance:
        if text == "number 3":
            raise ConfigError("the recording does not say its text")
        return Utterance(waveform, bursts().phonemes, voice, text)

    monkeypatch.setattr(recordings_module, "align", know)


# phones


@pytest.mark.parametrize("table", [ARPABET, ITALIAN])
def test_every_phone_of_the_engines_has_a_mouth_shape(table: dict[str, str]) -> None:
    neutral = viseme_targets("☃")[0][1]
    for symbol in filter(None, table.values()):
        for sign in symbol:
            assert viseme_targets(sign)[0][1] != neutral, symbol


def test_labels_cover_the_sound_and_stops_start_at_their_burst() -> None:
    labels = [("s", 0.1, 0.2), ("p", 0.2, 0.3), ("b", 0.3, 0.4)]
    found = labelled_utterance(noise(0.5), labels, voice="v", text="t")
    assert_covered(found)
    starts = {p.symbol: p.start_s for p in found.phonemes if p.symbol}
    assert starts == pytest.approx({"s": 0.1, "p": 0.248, "b": 0.3})
    closed = viseme_curves(found, 100, 50)[:, 0]
    assert (closed[22:38] < 0.05).all()  # lips closed from the label's start of p to the end of b
    with pytest.raises(ConfigError, match="starts before"):
        labelled_utterance(noise(0.5), [("s", 0.1, 0.3), ("a", 0.2, 0.4)], voice="v", text="t")
    with pytest.raises(ConfigError, match="no sound"):
        labelled_utterance(noise(0.5), [("", 0.1, 0.3)], voice="v", text="t")


def test_stretched_sounds_give_their_pauses_back() -> None:
    loud, still = noise(0.5), noise(0.5, 0.001)
    sound = np.concatenate([loud, still, loud])
    ends = with_pauses(sound, [("a", 0.0, 0.52), ("b", 0.52, 1.5)])
    assert [p[0] for p in ends] == ["a", "", "b"]
    assert ends[1][1:] == pytest.approx((0.5, 1.0 - 0.048), abs=0.03)  # a stop keeps its closure
    kept = [("a", 0.0, 0.6), ("b", 0.6, 0.8), ("o", 0.8, 1.5)]
    assert with_pauses(sound, kept) == kept  # b would be left without sound
    noisy = sound + noise(1.5, 0.1, seed=1)
    assert with_pauses(noisy, [("a", 0.0, 0.52), ("b", 0.52, 1.5)]) == [("a", 0.0, 0.52), ("b", 0.52, 1.5)]


def test_alignment_finds_the_times_that_espeak_knows(espeak: None) -> None:
    pytest.importorskip("pocketsphinx", reason="POCKETSPHINX IS MISSING, ALIGNMENT IS NOT TESTED")
    text = "My brother moves the yellow boat, and the baby opens five purple butterflies."
    spoken = synthesise(text, "en-us", rate=150)
    found = align(spoken.waveform, text)
    assert_covered(found)
    frames = int(spoken.seconds * 25)
    true, read = viseme_curves(spoken, 25, frames), viseme_curves(found, 25, frames)
    correlation = [np.corrcoef(true[:, i], read[:, i])[0, 1] for i in range(4)]
    assert min(correlation) > 0.8 and correlation[0] > 0.9
    bilabial = [[p.start_s for p in u.phonemes if p.symbol in ("m", "b")] for u in (spoken, found)]
    assert np.median([min(abs(np.array(bilabial[1]) - s)) for s in bilabial[0]]) < 0.025
    with pytest.raises(ConfigError, match="does not say its text 'hello'"):
        align(noise(1.0), "hello")
    assert align(spoken.waveform, text).phonemes == found.phonemes  # whatever came between
    with pytest.raises(ConfigError, match="no words"):
        align(spoken.waveform, "... !")
    unknown = "the bomblavius moves"  # a word that no dictionary has
    assert {"b", "m", "v", "l"} <= {
        p.symbol for p in align(synthesise(unknown, "en-us").waveform, unknown).phonemes
    }


def test_without_pocketsphinx_recordings_name_the_remedy(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    forced_alignment._decoder.cache_clear()
    with pytest.raises(DependencyError, match="pip install pocketsphinx"):
        SpeechLibrary(folder.parent / "library").add_recordings(folder)


# recordings


def test_a_folder_of_recordings_is_read_in_order(folder: Path) -> None:
    found = read_recordings(folder)
    assert [r.name for r in found] == [f"s{i}" for i in range(6)] + ["s6.wav"]
    assert [r.split for r in found] == ["train"] * 5 + ["held_out"] * 2
    assert (found[0].reader, found[6].reader, found[6].text) == ("book", "Ann", "number six")
    assert all(r.path.is_file() for r in found)


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("missing|text", MediaError, "line 1: no sound wavs/missing.wav"),
        ("../book/s0|text", ConfigError, "without folders"),
        ("s0", ConfigError, "must be 'name|text'"),
        ("s0|text|||test", ConfigError, "split 'test' must be one of"),
        ("", ConfigError, "lists no recordings"),
    ],
)
def test_bad_lists_are_refused_by_name(folder: Path, line: str, error: type[Exception], message: str) -> None:
    (folder / "metadata.csv").write_text(line, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_recordings(folder)


def test_a_folder_without_list_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"metadata.csv: cannot be read .*write a line"):
        read_recordings(tmp_path)


def test_long_recordings_are_cut_in_their_pauses() -> None:
    whole = join([bursts()] * 4)
    pieces = cut_at_pauses(whole, max_seconds=2.5)
    assert len(pieces) > 2 and all(p.seconds <= 2.5 for p in pieces)
    assert sum(len(p.waveform) for p in pieces) == len(whole.waveform)
    for piece in pieces:
        assert_covered(piece)
        assert_vowels_in_time(piece)
    assert cut_at_pauses(bursts(), 10.0)[0].phonemes == bursts().phonemes


# engines


@pytest.fixture
def flite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program that says "ah ah" like flite, in the voices rms and awb."""
    write_wav(tmp_path / "said.wav", bursts().waveform)
    program = tmp_path / "bin" / "flite"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -lv ]; then echo "Voices available: rms awb nobody"; exit; fi\n'
        f'for last; do :; done; cp {tmp_path / "said.wav"} "$last"\n'
        'echo "pau:0.400 aa:0.900 pau:1.500 aa:2.000 pau:2.210"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_engines_speak_with_times(flite: Path) -> None:
    found = available_voices(("flite",))
    assert [str(v) for v in found] == ["flite:rms", "flite:awb"]
    said = speak("ah ah", found[0])
    assert_covered(said)
    assert_vowels_in_time(said)
    assert (said.voice, said.text) == ("flite:rms", "ah ah")
    with pytest.raises(ConfigError, match="stretch=9"):
        speak("ah", found[0], stretch=9)
    with pytest.raises(ConfigError, match="nothing to say"):
        speak(" ", found[0])


def test_absent_and_unknown_engines_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(voices_module.shutil, "which", lambda _: None)
    for engine in ("flite", "festival"):
        with pytest.raises(DependencyError, match=f"{engine} was asked to speak and is not installed; 'sudo apt"):
            prepared(tmp_path, engines=(engine,))
    with pytest.raises(ConfigError, match="engine 'siri' must be one of"):
        available_voices(("siri",))


@pytest.mark.parametrize("voice", [VOICES[1], VOICES[4], VOICES[7]], ids=str)
def test_real_engines_close_the_lips_where_the_sound_is_soft(voice: Voice) -> None:
    try:
        if voice not in available_voices((voice.engine,)):
            pytest.skip(f"{voice} is not installed")
    except DependencyError as error:
        pytest.skip(str(error))
    said = speak("mamma, la pappa." if voice.language == "it" else "Mama, a happy puppy.", voice)
    assert_covered(said)
    assert speak(said.text, voice).phonemes == said.phonemes
    level = {True: [], False: []}
    for p in said.phonemes:
        if p.symbol and p.symbol[0] in "pbaɑæʌ":
            part = said.waveform[round(p.start_s * RATE) : round(p.end_s * RATE)]
            level[p.symbol[0] in "pb"].append(float(np.sqrt(np.mean(part**2))))
    assert np.median(level[False]) > 1.5 * np.median(level[True])


# library


def test_the_library_keeps_sentences_and_draws_them_again(folder: Path, known_times: None, flite: Path) -> None:
    place = folder.parent / "library"
    library = prepared(place, recordings=[folder], engines=("flite",), sentences=2)
    assert library.voices("train") == {"recording": ["book"], "engine": ["flite:rms"]}
    assert library.voices("held_out") == {"recording": ["Ann", "book"], "engine": ["flite:awb"]}
    again = prepared(place, recordings=[folder], engines=("flite",), sentences=2)
    assert (len(again), again.digest) == (len(library), library.digest)
    for split, allowed in (("train", {"book", "flite:rms"}), ("held_out", {"Ann", "book", "flite:awb"})):
        drawn = [library.draw(np.random.default_rng(i), split, 3.0) for i in range(12)]
        assert {u.voice for u in drawn} == allowed
        for i, utterance in enumerate(drawn):
            assert utterance.seconds >= 3.0
            assert_covered(utterance)
            same = again.draw(np.random.default_rng(i), split, 3.0)
            assert same.phonemes == utterance.phonemes and np.array_equal(same.waveform, utterance.waveform)


def test_recordings_that_say_something_else_are_left_out(
    folder: Path, known_times: None, caplog: pytest.LogCaptureFixture
) -> None:
    library = SpeechLibrary(folder.parent / "library")
    with caplog.at_level(logging.WARNING):
        library.add_recordings(folder)
    assert len(library) == 6 and "s3.wav: left out" in caplog.text


def test_stored_sentences_come_back(tmp_path: Path) -> None:
    library = SpeechLibrary(tmp_path)
    library.add("one", bursts(), kind="recording", split="train")
    (tmp_path / "bad.safetensors").write_bytes(b"broken")
    with pytest.raises(MediaError, match=r"bad.safetensors: is not a spoken sentence"):
        SpeechLibrary(tmp_path)
    with pytest.raises(ConfigError, match="must be a file name"):
        library.add("../one", bursts(), kind="recording", split="train")
    with pytest.raises(ConfigError, match="kind='song'"):
        library.add("two", bursts(), kind="song", split="train")


def test_a_mixture_speaks_from_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_library, "random_utterance", lambda *_: bursts("espeak"))
    library = SpeechLibrary(tmp_path)
    library.add("one", bursts(), kind="recording", split="train")
    speaker = mixture(library, 0.5)
    said = [speaker(np.random.default_rng(i), "train", 1.0).voice for i in range(60)]
    assert 15 < said.count("espeak") < 45 and set(said) == {"espeak", "reader"}
    assert {speaker(np.random.default_rng(i), "held_out", 1.0).voice for i in range(9)} == {"espeak"}
    with pytest.raises(ConfigError, match="no sentences of split='held_out'"):
        library.draw(np.random.default_rng(0), "held_out", 1.0)
    with pytest.raises(ConfigError, match="share=2"):
        mixture(library, 2)

"""Draw the bundled portraits and speak the bundled sentences: `python scripts/make_demo_assets.py`.

The people come from a stream of random numbers that neither training nor validation uses, the voices are held out.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

from letstalk_research.data.synthetic.faces import render
from letstalk_research.data.synthetic.identity import sample_identity
from letstalk_research.data.synthetic.motion import MOTION
from letstalk_research.data.synthetic.speech import Utterance, join, silence, synthesise

DEMO = Path(__file__).resolve().parent.parent / "letstalk_core" / "demo"
PREVIEWS = Path(__file__).resolve().parent.parent / "js" / "demo"  # small, for ComfyUI's web page
PEOPLE = {"ada": 8, "bo": 11, "cleo": 18, "dev": 22}  # name -> index in the stream
STREAM = 20_26
SHORT = (
    "Hello! I am a drawn face, and this voice is made by a computer.",
    "Watch my lips: mama, papa, bubble. Oh, how nice!",
)
LONG = (
    "Good evening, and welcome to a slightly longer talk.",
    "My name does not matter, because I was made from circles, curves and a little shading.",
    "Every word I say is turned into small movements of my mouth.",
    "When I say boom, my lips close. When I say who, they are round. When I say cheese, they are wide.",
    "Sometimes I stop for a moment, and then my mouth should rest.",
    "A long video is made of many short clips, and each one remembers how the last one ended.",
    "That is why my face stays the same, even after a minute, or after an hour.",
    "Thank you for listening. Please tell people when a video was made by a machine. Goodbye!",
)


def speak(sentences: tuple[str, ...], voice: str, pitch: float, pause: float) -> Utterance:
    parts = [silence(0.3)]
    for sentence in sentences:
        parts += [synthesise(sentence, voice, rate=150, pitch=pitch, pitch_range=55), silence(pause)]
    return join(parts).scaled(0.9)


def save_sound(path: Path, speech: Utterance, bit_rate: int = 40_000) -> None:
    """Mono sound in the format of the file name; 16 kHz is what the speech was brought to."""
    with av.open(str(path), "w") as container:
        codec = {".wav": "pcm_s16le", ".mp3": "libmp3lame"}[path.suffix]
        stream = container.add_stream(codec, rate=16_000, layout="mono")
        if path.suffix == ".mp3":
            stream.bit_rate = bit_rate
        samples = (np.clip(speech.waveform, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=16_000, frame_size=stream.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def main() -> None:
    (DEMO / "portraits").mkdir(parents=True, exist_ok=True)
    (DEMO / "speech").mkdir(parents=True, exist_ok=True)
    motion = np.zeros((1, len(MOTION)), np.float32)
    motion[0, MOTION.index("scale")] = 1.0
    motion[0, MOTION.index("smile")] = 0.25
    PREVIEWS.mkdir(parents=True, exist_ok=True)
    for name, index in PEOPLE.items():
        person = sample_identity(np.random.default_rng([STREAM, index]))
        picture = Image.fromarray(render(person, motion)[0].numpy())
        picture.save(DEMO / "portraits" / f"{name}.png", optimize=True)
        picture.save(PREVIEWS / f"{name}.jpg", quality=82, optimize=True)
    short, long = speak(SHORT, "en-us+Annie", 60, 0.45), speak(LONG, "en-us+m8", 40, 0.7)
    save_sound(DEMO / "speech" / "hello.wav", short)
    save_sound(DEMO / "speech" / "long_talk.mp3", long)
    for name, speech in {"hello": short, "long_talk": long}.items():
        save_sound(PREVIEWS / f"{name}.mp3", speech, bit_rate=16_000)


if __name__ == "__main__":
    main()

"""Draw docs/images/demo_photo.jpg: `python scripts/make_photo_sheet.py [--model DIR] [--out FILE] [--seconds N]`.

Every bundled person of `make_demo_portraits.py` says the bundled sentence with a model folder (the bundled one by
default): a row each, the portrait first, then moments of the video in their order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from make_demo_assets import DEMO
from make_demo_portraits import PHOTOS
from make_thumbnails import talking_moments
from PIL import Image

from letstalk_core.generate.settings import GenerateSettings
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import TalkingPortrait
from letstalk_core.media.audio.decode import load_waveform
from letstalk_core.media.portrait.crop import fit_to
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.load import load_bundle

SHEET = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo_photo.jpg"
COLUMNS, TILE = 6, 192
SAMPLE_RATE_HZ = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="model folder; the bundled one by default")
    parser.add_argument("--out", default=str(SHEET), help="JPEG to write")
    parser.add_argument("--seconds", type=float, default=4.0, help="of speech (default 4)")
    args = parser.parse_args()
    bundle = load_bundle(args.model)
    talking, settings = TalkingPortrait(bundle), GenerateSettings(seed=1)
    sound = load_waveform(DEMO / "speech" / "hello.wav")[: round(args.seconds * SAMPLE_RATE_HZ)]
    rows = []
    for name in PHOTOS:
        portrait, sink = load_portrait(DEMO / "portraits" / f"{name}.jpg"), KeptFrames()
        talking.generate(portrait, sound, sink, settings)
        frames = sink.video
        first = fit_to(portrait, (frames.shape[1], frames.shape[2])).numpy()
        rows.append([first, *talking_moments(frames.numpy(), COLUMNS - 1)])
    small = [
        [np.array(Image.fromarray(p).resize((TILE, TILE), Image.Resampling.LANCZOS)) for p in row] for row in rows
    ]
    sheet = np.concatenate([np.concatenate(row, 1) for row in small])
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(args.out, quality=88, optimize=True)


if __name__ == "__main__":
    main()

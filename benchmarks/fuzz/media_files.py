"""Sound, video and pictures."""

from __future__ import annotations

import struct
import zlib
from itertools import islice
from pathlib import Path
from random import Random

from benchmarks.fuzz.checks import tolerated
from benchmarks.fuzz.mutate import bad_bytes


def make_sound(rng: Random, seeds: Path, folder: Path) -> None:
    from benchmarks.fuzz.seeds import tone

    name = rng.choice([n for n in ("sound.wav", "sound.mp3", "sound.flac") if (seeds / n).exists()])
    data = bytearray((seeds / name).read_bytes())
    if name == "sound.wav" and rng.random() < 0.5:  # RIFF size, format, channels, rates, bits, data size
        data = bytearray(tone(0.05))
        for _ in range(rng.choice((1, 2, 3))):
            place, form = rng.choice(
                ((4, "<I"), (20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (32, "<H"), (34, "<H"), (40, "<I"))
            )
            top = 2 ** (8 * struct.calcsize(form)) - 1
            struct.pack_into(form, data, place, rng.choice((0, 1, 2, 3, 7, 64, 255, top // 2, top - 1, top)))
    else:
        data = bytearray(bad_bytes(rng, bytes(data), head=64))
    (folder / name).write_bytes(data)


def check_sound(folder: Path) -> None:
    from letstalk_core.cli.info import describe
    from letstalk_core.media.audio.decode import AudioSource, load_sound

    (path,) = folder.iterdir()
    tolerated(describe, path)
    tolerated(load_sound, path)
    tolerated(write_with_sound, path)
    source = AudioSource(path)
    source.moments()
    for _ in islice(source, 1000):
        pass


def write_with_sound(path: Path) -> None:
    """The sound as that of a video, which reads it once more."""
    import torch

    from letstalk_core.media.video.writer import VideoWriter

    with VideoWriter(path.with_name("out.mp4"), 25, (32, 32), audio=path) as writer:
        writer.write(torch.zeros(4, 32, 32, 3, dtype=torch.uint8))


def make_video(rng: Random, seeds: Path, folder: Path) -> None:
    data = bytearray((seeds / "video.mp4").read_bytes())
    boxes = b"mvhd tkhd mdhd stsd stts ctts stsz stsc stco elst avcC esds".split()
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = data.find(rng.choice(boxes))
            if at < 0:
                continue
            place = at + 4 + 4 * rng.randrange(24)
            value = rng.choice((0, 1, 2, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
            if place + 4 <= len(data):
                struct.pack_into(">I", data, place, value)
    else:
        data = bytearray(bad_bytes(rng, bytes(data)))
    (folder / "video.mp4").write_bytes(data)


def check_video(folder: Path) -> None:
    from letstalk_core.cli.info import describe
    from letstalk_core.media.audio.decode import load_video_sound
    from letstalk_core.media.video.reader import probe, read_video

    path = folder / "video.mp4"
    tolerated(describe, path)
    tolerated(load_video_sound, path)
    tolerated(probe, path)
    count = 0
    for _ in read_video(path):
        count += 1
    if count > 5 * 61 * 25:  # five true frames, a minute apart at most
        raise AssertionError(f"{count} frames came out of five")


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, body: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A PNG whose header says so; the picture itself is zeros, or `body`."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 3)
    if body is None:
        row = 1 + (width * channels * depth + 7) // 8
        packer = zlib.compressobj(9)
        body = b"".join(packer.compress(bytes(row)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bomb_chunk(rng: Random) -> bytes:
    """A profile or text of half a gigabyte in half a megabyte."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(512)) + packer.flush()
    name = rng.choice((b"iCCP", b"zTXt"))
    data = b"bomb\0\0" + packed
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_picture(rng: Random, seeds: Path, folder: Path) -> None:
    names = sorted(
        p.name for p in seeds.iterdir() if p.name.startswith(("picture.", "deep.", "palette.", "alpha."))
    )
    draw = rng.random()
    if draw < 0.15:  # huge claims over little or nothing
        sides = (0, 1, 33, 4096, 16_383, 65_535, 2**20, 2**31 - 1, 2**32 - 1)
        data = png(
            rng.choice(sides),
            rng.choice(sides),
            depth=rng.choice((1, 2, 4, 8, 16, 255)),
            colour=rng.choice((0, 2, 3, 4, 6, 9)),
            body=zlib.compress(bytes(rng.choice((0, 100, 10**6)))),
        )
        name = "picture.png"
    elif draw < 0.156:  # real bombs: small files, all of their pixels there
        side = rng.choice((7000, 9000, 12_000))
        depth, colour = rng.choice(((8, 2), (8, 6), (16, 0), (8, 3), (1, 0)))
        name, data = "picture.png", png(side, side, depth=depth, colour=colour)
    elif draw < 0.16:
        name, data = "picture.png", png(40, 40, extra=bomb_chunk(rng))
    else:
        name = rng.choice(names)
        data = bad_bytes(rng, (seeds / name).read_bytes(), head=128)
    (folder / name).write_bytes(data)


def check_picture(folder: Path) -> None:
    from letstalk_core.cli.info import describe
    from letstalk_core.media.portrait.crop import fit_to
    from letstalk_core.media.portrait.image import load_portrait, load_with_alpha

    (path,) = folder.iterdir()
    tolerated(describe, path)
    if path.stat().st_size < 200_000:  # larger ones are bombs, which take seconds to unpack each time
        tolerated(load_with_alpha, path)
    image = load_portrait(path)
    fit_to(image, (64, 64))

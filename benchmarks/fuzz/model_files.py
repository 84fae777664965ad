"""Model files, memory banks, pickled checkpoints and config.json."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.checks import tolerated
from benchmarks.fuzz.mutate import bad_bytes, bad_json, bad_value, dump_json


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def bad_safetensors(rng: Random, data: bytes) -> bytes:
    """A damaged header (also the JSON inside its metadata), damaged bytes, or a false length."""
    action = rng.randrange(10)
    header, body = split_safetensors(data)
    metadata = header.get("__metadata__", {})
    if action <= 4 and metadata:  # JSON within JSON
        key = rng.choice(sorted(metadata))
        try:
            inner = bad_json(rng, json.loads(metadata[key]))
            metadata[key] = dump_json(inner).decode("utf-8", "surrogatepass")
        except ValueError:
            metadata[key] = bad_value(rng)
        return join_safetensors(dump_json(header), body)
    if action <= 6:
        return join_safetensors(dump_json(bad_json(rng, header)), body)
    if action == 7:
        text = dump_json(header)
        length = rng.choice((0, 1, 7, len(text) - 1, len(text) + 1, len(data), 2**31, 2**63, 2**64 - 1))
        return join_safetensors(text, body, length)
    if action == 8:  # numbers that are none
        for number, count in ((float("nan"), 2), (float("inf"), 2)):
            body = body.replace(body[:4], struct.pack("<f", number), count)
        return join_safetensors(dump_json(header), body)
    return bad_bytes(rng, data)


def make_model(rng: Random, seeds: Path, folder: Path) -> None:
    names = ("autoencoder", "audio_encoder", "dit")
    chosen = rng.choice(names)
    for name in names:
        data = (seeds / f"{name}.safetensors").read_bytes()
        (folder / f"{name}.safetensors").write_bytes(bad_safetensors(rng, data) if name == chosen else data)
    if rng.random() < 0.02:
        (folder / f"{chosen}.safetensors").unlink()
        (folder / f"{chosen}.safetensors").symlink_to(rng.choice(("/etc/passwd", "nowhere", ".", "/dev/zero")))


def check_model(folder: Path) -> None:
    from letstalk_core.cli.info import describe
    from letstalk_core.networks.load import load_bundle

    for name in ("autoencoder", "audio_encoder", "dit"):
        tolerated(lambda path: json.dumps(describe(path)), folder / f"{name}.safetensors")
    load_bundle(folder).hashes()


def make_bank(rng: Random, seeds: Path, folder: Path) -> None:
    data = (seeds / "bank.safetensors").read_bytes()
    (folder / "bank.safetensors").write_bytes(bad_safetensors(rng, data))


def check_bank(folder: Path) -> None:
    import torch

    from letstalk_core.cli.info import describe
    from letstalk_core.sampling.memory_bank import MemoryBank

    path = folder / "bank.safetensors"
    tolerated(describe, path)
    bank = MemoryBank.load(path)
    if not torch.isfinite(bank.read()).all():
        raise AssertionError("a bank with NaN or infinity was accepted")
    bank.write(torch.zeros(1, 4, 4, 4, 4))
    bank.save(folder / "again.safetensors")


def make_pickle(rng: Random, seeds: Path, folder: Path) -> None:
    import torch

    path = folder / "weights.pt"
    if rng.random() < 0.2:

        class Evil:
            def __reduce__(self) -> Any:
                target = folder.parent / "outside" / "pwned"
                return rng.choice((os.system, eval, exec)), (f"open({str(target)!r}, 'w')",)

        buffer = io.BytesIO()
        torch.save({"weight": torch.zeros(2), "extra": Evil()}, buffer)
        path.write_bytes(rng.choice((buffer.getvalue(), pickle.dumps(Evil()))))
    else:
        path.write_bytes(bad_bytes(rng, (seeds / "weights.pt").read_bytes()))


def check_pickle(folder: Path) -> None:
    from letstalk_core.networks.autoencoder.convert import load_autoencoder

    load_autoencoder(folder / "weights.pt")


def make_config(rng: Random, seeds: Path, folder: Path) -> None:
    for name, model in (("wav2vec2", "audio_encoder"), ("dc_ae", "autoencoder")):
        inside = folder / name
        inside.mkdir()
        values = json.loads((seeds / f"{name}.json").read_text(encoding="utf-8"))
        data = dump_json(bad_json(rng, values))
        (inside / "config.json").write_bytes(bad_bytes(rng, data) if rng.random() < 0.2 else data)
        header, body = split_safetensors((seeds / f"{model}.safetensors").read_bytes())
        header.pop("__metadata__")
        header = {key.removeprefix(f"{model}."): value for key, value in header.items()}
        (inside / "model.safetensors").write_bytes(join_safetensors(dump_json(header), body))


def check_config(folder: Path) -> None:
    from letstalk_core.networks.audio_encoder import load_wav2vec2_folder
    from letstalk_core.networks.autoencoder.convert import load_autoencoder
    from letstalk_core.networks.wav2vec2_files import load_wav2vec2_file

    tolerated(load_wav2vec2_file, folder / "wav2vec2" / "model.safetensors")
    tolerated(load_autoencoder, folder / "dc_ae" / "model.safetensors")
    load_wav2vec2_folder(folder / "wav2vec2")

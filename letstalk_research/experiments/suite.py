"""`letstalk experiment`: the paper's ideas, tried with small networks; each experiment writes a page with plots.

All state lies in the output folder: finished trainings and measurements are kept, interrupted ones go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from letstalk_core.errors import ConfigError
from letstalk_core.files import file_sha256
from letstalk_core.networks.load import load_model

from ..training.runtime import choose_precision
from . import attention, fusion, memory, prediction
from .laboratory import Group, Laboratory
from .page import Section, machine, write_page
from .people import Codec
from .variants import Budget, Variant, measure_data

_Experiment = tuple[Sequence[Variant], Callable[[Laboratory, Path], Section]]
EXPERIMENTS: dict[str, _Experiment] = {
    "fusion": (fusion.VARIANTS, fusion.run),
    "memory": (memory.VARIANTS, memory.run),
    "attention": (attention.VARIANTS, attention.run),
    "prediction": (prediction.VARIANTS, prediction.run),
}


def run_experiments(
    names: Sequence[str],
    budget: Budget,
    *,
    data: Path,
    autoencoder: Path,
    audio_encoder: Path,
    runs: Path,
    docs: Path,
    seed: int = 0,
    command: str = "",
    written: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Run experiments and write docs/experiments/<name>.md with its plots; returns the pages.

    `seed` chooses the held-out people. `command` is shown on the pages; `written` is called for each one.
    Raises: Stopped on a signal, ConfigError, MediaError, DependencyError, OutputError.
    """
    unknown = sorted(set(names) - set(EXPERIMENTS))
    if unknown or not names:
        raise ConfigError(f"experiments={','.join(unknown) or 'none'} must be among {','.join(EXPERIMENTS)}")
    facts = measure_data(data, budget.clip_frames)
    for kind, path in (("autoencoder", autoencoder), ("audio_encoder", audio_encoder)):
        wanted = facts.hashes.get(kind)
        if wanted and file_sha256(path) != wanted:
            raise ConfigError(f"{path}: is not the {kind} that encoded {data}; give that one, or encode again")
    device = torch.device("cuda" if budget.device == "auto" and torch.cuda.is_available() else "cpu")
    half = choose_precision(budget.precision, device) == "bf16"
    network: Any = load_model(autoencoder, "autoencoder", device=device)
    group = Group(
        facts,
        budget,
        seed=seed,
        codec=Codec(network, dtype=torch.bfloat16 if half else torch.float32),
        audio_encoder=load_model(audio_encoder, "audio_encoder"),
        folder=runs / "people",
    )
    pages = []
    for name in names:
        variants, run = EXPERIMENTS[name]
        folder = docs / "experiments"
        section = run(Laboratory(name, variants, group, runs), folder)
        where = {**machine(), "precision": "bfloat16 in training and decoding" if half else "float32"}
        pages.append(write_page(section, folder, command=command, facts=where))
        if written is not None:
            written(pages[-1])
    return pages

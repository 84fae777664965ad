"""Which network lies where in an authors' file: dicts in dicts, or one flat table of a training framework.

Known are {"model": …, "ema": …, "audioproj": …}, a Lightning file, whose "state_dict" has those words as prefixes
of its names, and the bare weights of one denoiser. What distributed training ("module.") and torch.compile
("_orig_mod.") put into names is taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CheckpointError

DENOISER, PROJECTION = "x_embedder.proj.weight", "proj1.weight"  # by which a network is known
WRAPPERS = ("module", "_orig_mod")
UNNAMED = ("", "state_dict.")  # where weights lie that nobody calls ema or model
DEPTH = 8  # of dicts in dicts; a file may hold itself
_EMA = re.compile(r"(^|[._])ema($|[._])")


def flat_names(content: Mapping[Any, Any], depth: int = DEPTH) -> dict[str, Tensor]:
    """Every tensor of dicts in dicts under one dotted name, without wrappers. Raises: CheckpointError."""
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        name = ".".join(part for part in str(key).split(".") if part not in WRAPPERS)
        if isinstance(value, Tensor):
            inner = {name: value}
        elif isinstance(value, Mapping) and depth > 1:
            inner = {f"{name}.{k}" if name else k: v for k, v in flat_names(value, depth - 1).items()}
        else:
            continue
        for twice in sorted(found.keys() & inner.keys()):
            raise CheckpointError(f"checkpoint: holds {twice} twice, with and without a wrapper; save one of them")
        found |= inner
    return found


def holds_denoiser(names: Mapping[str, Any]) -> bool:
    """Whether these flat names are of a file that `find_networks` can take apart."""
    return bool(_prefixes(names, DENOISER))


def find_networks(
    tensors: Mapping[str, Tensor], weights: str
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Denoiser and audio projection, if there is one, under the authors' names. `weights` is "ema" or "model".

    Raises: CheckpointError if there is no such denoiser, or more than one.
    """
    denoisers, projections = _prefixes(tensors, DENOISER), _prefixes(tensors, PROJECTION)
    if not denoisers:
        raise CheckpointError(
            f"checkpoint: has no {DENOISER}; it is not a LetsTalk model (first names: {sorted(tensors)[:5]})"
        )
    fitting = [p for p in denoisers if _is_ema(p) == (weights == "ema")]
    if not fitting and len(denoisers) == 1 and denoisers[0] in UNNAMED:
        fitting = denoisers
    if len(fitting) != 1:
        held = ", ".join(p.rstrip(".") or "a denoiser without a prefix" for p in fitting or denoisers)
        remedy = "save one of them alone" if fitting else "choose ema or model (--weights)"
        raise CheckpointError(
            f"checkpoint: has {len(fitting) or 'no'} weights {weights!r} (it holds {held}); {remedy}"
        )
    parts = [*denoisers, *projections]
    best = min(projections, key=lambda p: (_is_ema(p) != (weights == "ema"), "audioproj" not in p), default=None)
    return _below(tensors, fitting[0], parts), None if best is None else _below(tensors, best, parts)


def _prefixes(names: Mapping[str, Any], mark: str) -> list[str]:
    return sorted(k[: -len(mark)] for k in names if k == mark or k.endswith(f".{mark}"))


def _is_ema(prefix: str) -> bool:
    return _EMA.search(prefix) is not None


def _below(tensors: Mapping[str, Tensor], prefix: str, parts: list[str]) -> dict[str, Tensor]:
    """What lies below a prefix and below none of the longer ones."""
    others = tuple(p for p in parts if len(p) > len(prefix) and p.startswith(prefix))
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix) and not k.startswith(others)}

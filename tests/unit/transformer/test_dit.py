from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.activations import peak_activation_elements
from letstalk_core.networks.transformer.convert import dit_config_from_official, dit_from_official
from letstalk_core.networks.transformer.dit import LetsTalkDiT

FUSIONS = ("direct", "siamese", "symbiotic")
GOLDEN = Path(__file__).parents[2] / "golden" / "dit_tiny.safetensors"
Make = Callable[..., LetsTalkDiT]
Inputs = Callable[..., dict[str, Tensor]]


@pytest.mark.parametrize("cached", [False, True])
def test_output_equals_the_golden_one(cached: bool) -> None:
    golden = load_file(GOLDEN)
    weights = {k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")}
    config = dit_config_from_official(weights, num_heads=2, grid_size=(8, 8))
    dit = LetsTalkDiT(config)
    dit.load_state_dict(dit_from_official(weights, config))
    inputs = [golden[f"in.{name}"] for name in ("x", "t", "portrait", "memory", "audio")]
    cache: dict[str, Any] | None = {} if cached else None
    with torch.no_grad():
        out = [dit(*inputs, cache=cache) for _ in range(2)][-1]
    assert (out - golden["out"]).abs().max() <= 1e-5 * golden["out"].abs().max()


def test_samples_of_a_batch_do_not_mix(make_dit: Make, make_inputs: Inputs) -> None:
    dit, inputs = make_dit(), make_inputs(batch=3, memory=5, grid=(6, 2))  # larger than trained
    order = torch.tensor([2, 0, 1])
    shuffled = dit(**{name: value[order] for name, value in inputs.items()})
    torch.testing.assert_close(shuffled, dit(**inputs)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_cache_gives_identical_results(make_dit: Make, make_inputs: Inputs, fusion: str) -> None:
    dit, inputs = make_dit(portrait_fusion=fusion, audio_fusion=fusion), make_inputs()
    later = {**inputs, "x": make_inputs(seed=1)["x"], "timestep": torch.tensor([5.0, 900.0])}
    cache: dict[str, Any] = {}
    with torch.no_grad():
        assert torch.equal(dit(**inputs, cache=cache), dit(**inputs))
        assert torch.equal(dit(**later, cache=cache), dit(**later))


def test_cache_of_another_batch_is_refused(make_dit: Make, make_inputs: Inputs) -> None:
    dit, cache = make_dit(), {}
    dit(**make_inputs(batch=2), cache=cache)
    with pytest.raises(ConfigError, match="empty dict to each new clip"):
        dit(**make_inputs(batch=1), cache=cache)


def test_a_host_may_run_the_blocks_itself(make_dit: Make, make_inputs: Inputs) -> None:
    dit, inputs = make_dit(), make_inputs()
    seen = []

    def run(index: int, block: nn.Module, *inputs: Any) -> Any:
        seen.append(index)
        return block(*inputs)

    assert torch.equal(dit(**inputs, run_block=run), dit(**inputs))
    assert seen == [0, 1]
    skipped = dit(**inputs, run_block=lambda index, block, *inputs: inputs[:3])
    assert skipped.isfinite().all() and not torch.allclose(skipped, dit(**inputs), atol=1e-3)


def test_every_softmax_attention_but_the_spatial_is_the_hosts(make_dit: Make, make_inputs: Inputs) -> None:
    dit, inputs = make_dit(portrait_fusion="siamese", audio_fusion="siamese"), make_inputs()
    shapes = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append((tuple(q.shape), tuple(k.shape)))
        return nn.functional.scaled_dot_product_attention(q, k, v)

    assert torch.equal(dit(**inputs, attend=attend), dit(**inputs))
    temporal, portrait, audio = (
        ((2, 32, 7, 16),) * 2,
        ((2, 2, 80, 16), (2, 2, 16, 16)),
        ((10, 2, 16, 16), (10, 2, 3, 16)),
    )
    branch = ((2, 6, 5, 16),) * 2
    assert shapes == [branch, branch, *[temporal, portrait, audio] * 2]


def test_gradient_checkpointing_changes_no_gradient(make_dit: Make, make_inputs: Inputs) -> None:
    plain = make_dit()
    frugal = copy.deepcopy(plain)
    frugal.gradient_checkpointing = True
    for dit in (plain, frugal):
        dit(**make_inputs()).square().sum().backward()
    for a, b in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_fresh_weights_predict_zero_and_learn_from_the_first_step(make_inputs: Inputs, make_dit: Make) -> None:
    dit, inputs = make_dit(), make_inputs()
    torch.manual_seed(0)
    dit.init_weights()
    assert dit(**inputs).abs().max() == 0
    optimizer = torch.optim.AdamW(dit.parameters(), lr=3e-3)
    target = make_inputs(seed=1)["x"]
    losses = []
    for _ in range(15):
        loss = (dit(**inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(("portrait", "audio"), list(itertools.product(FUSIONS, FUSIONS)))
def test_each_pair_of_fusions_trains_every_parameter_and_starts_at_zero(
    make_dit: Make, make_inputs: Inputs, portrait: str, audio: str
) -> None:
    dit, inputs = make_dit(portrait_fusion=portrait, audio_fusion=audio), make_inputs(grid=(3, 4))
    dit(**inputs).square().sum().backward()
    unused = [n for n, p in dit.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert unused == []
    for parameter in dit.parameters():
        nn.init.constant_(parameter, float("nan"))
    dit.init_weights()
    assert all(p.isfinite().all() for p in dit.parameters())
    with torch.no_grad():
        assert dit(**inputs).abs().max() == 0


def test_layers_come_from_the_operations_given() -> None:
    class Marked:
        class Linear(nn.Linear): ...

        class Conv1d(nn.Conv1d): ...

        class Conv2d(nn.Conv2d): ...

        class LayerNorm(nn.LayerNorm): ...

    config = DiTConfig(hidden_size=32, depth=1, num_heads=2, portrait_fusion="siamese", audio_fusion="siamese")
    dit = LetsTalkDiT(config, operations=Marked)
    plain = [n for n, m in dit.named_modules() if type(m) in (nn.Linear, nn.Conv2d, nn.LayerNorm)]
    assert plain == []
    assert {id(p) for p in dit.parameters()} == {
        id(p) for m in dit.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.LayerNorm)) for p in m.parameters()
    }


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 5, 3, 4, 4), r"x: has shape \[2, 5, 3, 4, 4\]"),
        ("x", (2, 0, 4, 4, 4), "at least one frame"),
        ("timestep", (1,), r"timestep: has shape \[1\]"),
        ("portrait", (2, 4, 4, 5), r"portrait: has shape \[2, 4, 4, 5\]"),
        ("memory", (2, 2, 4, 5, 4), r"memory: has shape \[2, 2, 4, 5, 4\]"),
        ("audio", (2, 4, 3, 12), r"audio: has shape \[2, 4, 3, 12\]"),
        ("audio", (2, 5, 3, 13), "audio projection of the same checkpoint"),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(
    make_dit: Make, make_inputs: Inputs, name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_dit()(**{**make_inputs(), name: torch.zeros(shape)})


def test_a_grid_that_is_no_multiple_of_the_patch_is_refused(make_dit: Make, make_inputs: Inputs) -> None:
    with pytest.raises(ConfigError, match="3 x 4 is not a multiple of patch_size=2"):
        make_dit(patch_size=2)(**make_inputs(grid=(3, 4)))


@pytest.mark.parametrize("spoken", [(1, 0), (0, 1, 0), (0, 0)], ids=str)
@torch.no_grad()
def test_clips_without_sound_skip_its_attention_and_give_the_same(
    make_dit: Make, make_inputs: Inputs, spoken: tuple[int, ...]
) -> None:
    """As in guidance. Without a cache nothing is looked for, and the attention is computed."""
    dit, inputs = make_dit(), make_inputs(batch=len(spoken))
    inputs["audio"] = inputs["audio"] * torch.tensor(spoken).view(-1, 1, 1, 1)
    kept = {name: value.clone() for name, value in inputs.items()}
    for t in ([700.0] * len(spoken), [100.0 + 50 * i for i in range(len(spoken))]):
        inputs["timestep"] = kept["timestep"] = torch.tensor(t)
        cache: dict[str, Any] = {}
        for _ in range(2):
            torch.testing.assert_close(dit(**inputs, cache=cache), dit(**inputs), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(inputs[name], kept[name]) for name in kept)


def test_without_gradients_the_results_are_the_same(make_dit: Make, make_inputs: Inputs) -> None:
    """Then memory is reused, and a batch at one timestep is modulated as one."""
    dit, inputs = make_dit(), make_inputs(batch=2)
    for t in ([300.0, 300.0], [300.0, 800.0]):
        inputs["timestep"] = torch.tensor(t)
        expected = dit(**inputs)
        with torch.no_grad():
            torch.testing.assert_close(dit(**inputs), expected, rtol=1e-5, atol=1e-6)


# the memory that it takes


BATCH, FRAMES, GRID, MEMORY, TOKENS = 1, 8, 4, 2, 4


class Allocated(TorchDispatchMode):
    """Counts the bytes of tensors made inside the block, and how many of them were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        out = function(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_iter(out) if isinstance(t, Tensor)):
            if storage._cdata not in self.storages | given:
                self.storages.add(storage._cdata)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, storage: int, size: int) -> None:
        self.alive -= size
        self.storages.discard(storage)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "changes",
    [{}, {"mlp_ratio": 2.0}, {"portrait_fusion": "siamese"}, {"portrait_fusion": "direct"}, {"depth": 4}],
    ids=str,
)
@torch.no_grad()  # as hosts run it
def test_estimate_is_what_torch_allocates(changes: dict[str, Any], dtype: torch.dtype) -> None:
    shape = {"hidden_size": 64, "depth": 2, "num_heads": 4, "in_channels": 4, "audio_token_dim": 16}
    config = DiTConfig(**{**shape, **changes})
    dit = LetsTalkDiT(config, dtype=dtype).requires_grad_(False)
    x = torch.zeros(BATCH, FRAMES, 4, GRID, GRID, dtype=dtype)
    conditions = (x[:, 0], x[:, :MEMORY], torch.zeros(BATCH, FRAMES, TOKENS, 16, dtype=dtype))
    dit(x, torch.zeros(BATCH), *conditions)  # position tables are kept from here on
    cache: dict[str, Any] = {}
    with Allocated() as allocated:
        dit(x, torch.zeros(BATCH), *conditions, cache=cache)
    estimate = dtype.itemsize * peak_activation_elements(
        config,
        audio_tokens=TOKENS,
        batch=BATCH,
        frames=FRAMES,
        height=GRID,
        width=GRID,
        memory=MEMORY,
        float16=dtype == torch.float16,
    )
    assert 0.85 < estimate / allocated.peak < 1.25  # so small a shape has its share of odds and ends

"""Losses, optimisers, averages and schedules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from letstalk_research.training import losses
from letstalk_research.training.checkpoints import EMA
from letstalk_research.training.config import OptimizerConfig
from letstalk_research.training.optimizers import Muon, build_optimizers, learning_rate_factor, orthogonalise
from letstalk_research.training.runtime import Prefetcher, choose_precision, seed_of


def test_region_weights_are_full_inside_soft_at_the_edge_and_one_outside() -> None:
    boxes = torch.tensor([[[4, 4, 12, 12], [0, 0, 0, 0], [10, 4, 14, 12]]])
    weights = losses.region_weights(boxes, (3.0, 9.0, 5.0), 16, 16, softness=2.0)
    assert weights.shape == (1, 1, 16, 16)
    assert weights[0, 0, 8, 8] == 3
    assert weights[0, 0, 8, 12] == 5  # the larger of two overlapping boxes
    assert weights[0, 0, 0, 0] == 1  # a box without area counts for nothing
    assert weights[0, 0, 3, 8] == pytest.approx(1 + 2 * 0.25)


def test_losses_of_a_constant_error() -> None:
    error, weights = torch.full((2, 3, 16, 16), 0.5), torch.rand(2, 1, 16, 16) + 1
    assert losses.weighted_l1(error, weights) == pytest.approx(0.5, abs=1e-6)
    assert losses.gradient_l1(error, weights) == 0
    assert losses.multiscale_l1(error) == pytest.approx(1.0)


def test_gradient_loss_sees_edges_that_averages_do_not() -> None:
    checker = (torch.arange(16) % 2).float().view(1, 1, 1, 16).expand(1, 1, 16, 16) - 0.5
    assert losses.multiscale_l1(checker) == 0
    assert losses.gradient_l1(checker, torch.ones(1, 1, 16, 16)) == 1


def test_the_latent_regulariser_is_zero_for_unit_latents_only() -> None:
    latents = torch.randn(8, 4, 32, 32)
    latents -= latents.mean((0, 2, 3), keepdim=True)
    latents /= latents.std((0, 2, 3), keepdim=True, correction=0)
    assert losses.latent_regulariser(latents) < 1e-8
    assert losses.latent_regulariser(2 * latents) > 1


def test_psnr_of_a_known_error() -> None:
    target = torch.zeros(2, 3, 8, 8)
    assert losses.psnr(target + 0.02, target).tolist() == pytest.approx([40.0, 40.0], abs=1e-3)
    error = target.clone()
    error[0, :, :4] = 0.2
    boxes = torch.tensor([[[0, 0, 8, 4]], [[0, 0, 0, 0]]])
    assert losses.region_psnr(target + error, target, boxes, [0]) == pytest.approx([20.0], abs=1e-3)


@pytest.mark.parametrize("shape", [(2, 24, 10), (2, 10, 24), (1, 16, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert 0.5 < values.min() <= values.max() < 1.3


@pytest.mark.parametrize("shape", [(32, 64), (32, 16, 3, 3)], ids=str)
def test_a_muon_update_goes_downhill_and_has_the_size_of_the_learning_rate(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape)
    Muon([weight], 0.01).step()
    rms = float(weight.detach().square().mean().sqrt())
    assert rms == pytest.approx(0.2 * 0.01, rel=0.2)
    assert (weight * weight.grad).sum() < 0


def test_every_parameter_is_in_one_optimizer() -> None:
    net = nn.ModuleDict({"conv_in": nn.Conv2d(3, 32, 3), "hidden": nn.Linear(32, 32), "norm": nn.LayerNorm(32)})
    net["norm"].requires_grad_(False)
    optimizers = build_optimizers(net, OptimizerConfig(name="muon", lr=1e-3, weight_decay=0.1))
    groups = [group for o in optimizers for group in o.param_groups]
    counts = [len(group["params"]) for group in groups]
    assert [type(o).__name__ for o in optimizers] == ["AdamW", "Muon"]
    assert counts == [1, 2, 1]  # first layer's weight, biases, hidden weight
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1]


def test_the_schedule_warms_up_stays_flat_and_decays() -> None:
    config = OptimizerConfig(warmup_steps=4, flat=0.5, final_factor=0.1)
    assert [learning_rate_factor(config, s, 0.0) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate_factor(config, 9, 0.5) == 1
    assert learning_rate_factor(config, 9, 0.75) == pytest.approx(0.55)
    assert learning_rate_factor(config, 9, 1.2) == pytest.approx(0.1)


def test_the_average_follows_the_weights_and_can_be_put_in_their_place() -> None:
    net = nn.Linear(2, 2)
    start = net.weight.detach().clone()
    ema = EMA(net, 0.9)
    with torch.no_grad():
        net.weight += 1
    ema.update(net)
    torch.testing.assert_close(ema.average["weight"], start + 1 - 2 / 11)  # decay (1 + 1) / (10 + 1) at first
    own = net.weight.detach().clone()
    with ema.applied(net):
        assert torch.equal(net.weight, ema.average["weight"])
        assert not net.training
    assert torch.equal(net.weight, own)
    assert net.training


def test_an_average_goes_on_from_the_state_of_another_run() -> None:
    net = nn.Linear(2, 1)
    saved = {"updates": 9, "average": {"weight": torch.zeros(1, 2), "bias": torch.ones(1)}}
    ema = EMA(net, 0.9)
    ema.load_state_dict(saved)
    ema.update(net)
    torch.testing.assert_close(ema.average["weight"], 9 / 20 * net.weight.detach())  # decay (1 + 10) / (10 + 10)
    assert ema.state_dict()["updates"] == 10 and set(ema.average) == set(net.state_dict())


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_and_are_planned_in_order(workers: int) -> None:
    planned: list[int] = []

    def plan(index: int) -> Callable[[], int]:
        planned.append(index)
        return lambda: 10 * index

    batches = Prefetcher(plan, 5, workers)
    assert [next(batches) for _ in range(4)] == [50, 60, 70, 80]
    assert planned[:4] == [5, 6, 7, 8]
    batches.close()


def test_seeds_depend_on_every_part() -> None:
    assert len({seed_of(0, "step", i, r) for i in range(10) for r in range(3)}) == 30
    assert 0 <= seed_of("x") < 2**63


def test_named_precisions_are_taken_as_they_are() -> None:
    cpu = torch.device("cpu")
    assert [choose_precision(p, cpu) for p in ("fp32", "bf16")] == ["no", "bf16"]
    assert choose_precision("auto", cpu) in ("no", "bf16")

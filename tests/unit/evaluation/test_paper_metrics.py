"""The papers' metrics against other implementations, definitions and hand-made values, on small inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from letstalk_core.errors import CheckpointError, ConfigError
from letstalk_research.evaluation.paper.features import inception
from letstalk_research.evaluation.paper.measures import Landmarks, Moments, frechet_distance, ssim
from letstalk_research.evaluation.paper.networks import FIVE, I3D, TEMPLATE, IResNet, aligned_faces, same_padding
from letstalk_research.evaluation.paper.pairs import Clip, Pair, find_pairs
from letstalk_research.evaluation.paper.syncnet import SyncNet, mfcc, sync_crops, sync_scores
from letstalk_research.evaluation.paper.weights import load_weights, read_weights


def moments(features: Tensor, parts: int = 3) -> Moments:
    found = Moments()
    for part in features.chunk(parts):
        found.update(part)
    return found


def test_the_frechet_distance_equals_torch_fidelitys_whatever_the_batches() -> None:
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = torch.randn(60, 12), torch.randn(40, 12) @ torch.randn(12, 12) + 0.5
    statistics = [metric_fid.fid_features_to_statistics(x.double()) for x in (a, b)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(moments(a), moments(b, 7)) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_rank_poor_and_of_equal_features_is_sound() -> None:
    a = torch.randn(5, 32)  # fewer than dimensions: the covariance is singular
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(moments(a), moments(a + 2)) == pytest.approx(4 * 32, rel=1e-5)
    assert math.isnan(frechet_distance(moments(a[:1], 1), moments(a)))


def test_fid_features_come_from_a_file_of_tensors_and_from_no_other(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not of FID's Inception"):
        inception(tmp_path / "other.pth", "cpu")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="more than plain tensors"):
        read_weights(tmp_path / "code.pth")


def test_ssim_equals_its_definition_at_every_window() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (16, 14, 3), dtype=np.uint8)
    b = np.clip(a + rng.integers(-40, 40, a.shape), 0, 255).astype(np.uint8)
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    found = []
    for top, left, c in np.ndindex(6, 4, 3):
        x, y = (p[top : top + 11, left : left + 11, c].astype(float) for p in (a, b))
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        joint = (weights * (x - mx) * (y - my)).sum()
        c1, c2 = 2.55**2, 7.65**2
        found.append((2 * mx * my + c1) * (2 * joint + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(np.mean(found), rel=1e-9)


def points_at(t: int, middle: float = 60.0, reach: float = 30.0) -> np.ndarray:
    points = np.random.default_rng(1).uniform(middle - reach, middle + reach, (478, 2))
    return np.repeat(points[None], t, 0)


def pair_of(made: np.ndarray, truth: np.ndarray, side: int) -> Pair:
    frames = torch.zeros(len(made), side, side, 3, dtype=torch.uint8)
    return Pair("x", Clip(Path("a"), frames, lambda f: made), Clip(Path("b"), frames, lambda f: truth))


def test_landmark_distance_is_in_pixels_of_256_and_knows_no_place() -> None:
    truth = points_at(4)
    made = truth + 17.0  # moved as a whole
    made[3] = np.nan  # no face there
    made[:, 13] += (8.0, 0.0)  # one of the 80 points of the lips, at half size
    measure = Landmarks()
    measure.add(pair_of(made, truth, 128))
    values = {name: value.mean for name, value in measure.values().items()}
    # The point is 16 px off; that moves the middle of its group of n by 16 / n, and the other n - 1 with it.
    assert values["LMD, mouth"] == pytest.approx(16 * (1 - 1 / 80) / 80 + 79 * 16 / 80 / 80)
    assert values["LMD, face"] == pytest.approx(16 * (1 - 1 / 468) / 468 + 467 * 16 / 468 / 468)


def test_i3d_has_the_public_ports_layers_and_weights() -> None:
    with torch.device("meta"):
        state = I3D().state_dict()
    assert sum(v.numel() for k, v in state.items() if "running" not in k and "num_batches" not in k) == 12_697_264
    for name in ("Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b2b.bn.running_var", "Mixed_5c.b3b.conv3d.weight"):
        assert name in state
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(16, 7, 2), (15, 7, 2), (8, 3, 2), (7, 3, 2), (5, 2, 2)])
def test_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """ceil(size / stride) positions; of an odd number of zeros one more lies behind."""
    x = torch.arange(1.0, size + 1).view(1, 1, size, 1, 1)
    padded = same_padding(x, (kernel, 1, 1), (stride, 1, 1)).flatten()
    assert (len(padded) - kernel) // stride + 1 == math.ceil(size / stride)
    before, behind = int((padded != 0).nonzero()[0]), int((padded.flip(0) != 0).nonzero()[0])
    assert behind - before in (0, 1)


@torch.no_grad()
def test_i3d_sees_clips() -> None:
    logits = I3D().eval()(torch.randn(2, 3, 8, 32, 32))
    assert logits.shape == (2, 400) and not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("depths", "millions"), [((2, 2, 2, 2), 24.03), ((3, 4, 14, 3), 43.59), ((3, 13, 30, 3), 65.16)]
)
def test_iresnets_have_their_public_sizes(depths: tuple[int, ...], millions: float) -> None:
    with torch.device("meta"):
        network = IResNet(depths)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_an_iresnet_is_rebuilt_from_its_file_without_counters(tmp_path: Path) -> None:
    network = IResNet((1, 2, 1, 1), width=4, embedding=8).eval()
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "b.pth")
    tensors = read_weights(tmp_path / "b.pth")
    again = load_weights(IResNet.like(tensors), tensors, tmp_path / "b.pth")
    x = torch.randn(2, 3, 112, 112)
    torch.testing.assert_close(again(x), network(x))
    with pytest.raises(CheckpointError, match="not a backbone"):
        IResNet.like({"x": torch.zeros(1)})


def test_a_face_is_moved_turned_and_scaled_onto_the_template() -> None:
    points = points_at(1)
    turn = 1.7 * np.exp(0.4j)
    at = np.array(TEMPLATE) @ (1, 1j) * turn + (70 - 20j)
    points[0, list(FIVE)] = np.stack([at.real, at.imag], -1)
    rows, columns = torch.meshgrid(torch.arange(260.0), torch.arange(260.0), indexing="ij")
    places = torch.stack([columns, rows, rows * 0], -1)[None] / 2  # colours say where they are
    face = aligned_faces(places, points)
    x, y = ((face[0, c] + 1) * 127.5 * 2 for c in (0, 1))
    for u, v in ((30, 40), (60, 90)):
        expected = (u + 1j * v) * turn + (70 - 20j)
        assert (float(x[v, u]), float(y[v, u])) == pytest.approx((expected.real, expected.imag), abs=1e-2)


def test_mfcc_equals_a_frame_by_frame_definition() -> None:
    waveform = torch.randn(4123, generator=torch.Generator().manual_seed(0)) * 0.1
    x = waveform.double().numpy() * 32768
    emphasised = np.array([x[0], *(x[i] - 0.97 * x[i - 1] for i in range(1, len(x)))])
    mel = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, 2595 * math.log10(1 + 8000 / 700), 28)]
    edges = [math.floor(513 * hz / 16000) for hz in mel]
    expected = []
    for k in range(25):
        frame = np.zeros(512)
        piece = emphasised[160 * k : 160 * k + 400]
        frame[: len(piece)] = piece
        waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(512)) / 512)
        power = np.abs((frame * waves).sum(1)) ** 2 / 512
        bands = []
        for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False):
            rise = sum(power[i] * (i - low) / (mid - low) for i in range(low, mid))
            bands.append(rise + sum(power[i] * (high - i) / (high - mid) for i in range(mid, high)))
        logs = np.log(bands)
        row = [math.log(power.sum())]
        for n in range(1, 13):
            c = sum(logs[j] * math.cos(math.pi * n * (j + 0.5) / 26) for j in range(26)) * math.sqrt(2 / 26)
            row.append(c * (1 + 11 * math.sin(math.pi * n / 22)))
        expected.append(row)
    found = mfcc(waveform)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


class Clock(nn.Module):
    """Stands for SyncNet: both sides say which frame they see, the faces by their colour."""

    def __init__(self, late: int) -> None:
        super().__init__()
        self.unused, self.late = nn.Parameter(torch.zeros(1)), late

    def lips(self, x: Tensor) -> Tensor:
        return F.one_hot(x[:, 0, 0, 0, 0].long(), 256).float()

    def sound(self, x: Tensor) -> Tensor:
        step = torch.round(x[:, 0, 0, 0] / 4).long() - self.late
        return F.one_hot(step.clamp(min=0), 256).float()


@pytest.mark.parametrize("late", [0, 4, -6])
def test_sync_finds_the_shift_at_which_lips_and_sound_fit(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.repeat(np.arange(400.0)[:, None], 13, 1)
    monkeypatch.setattr("letstalk_research.evaluation.paper.syncnet.mfcc", lambda waveform: steps)
    faces = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 224, 224, 3)
    confidence, distance, lag = sync_scores(Clock(late), faces, torch.zeros(60 * 640))  # type: ignore[arg-type]
    # 55 windows; beyond the ends lie zeros, 1 away from a frame's vector, and other frames are sqrt(2) away.
    assert lag == -late and distance == pytest.approx(abs(late) / 55, abs=0.03)
    assert confidence == pytest.approx(math.sqrt(2) - distance, abs=0.2)
    assert math.isnan(sync_scores(Clock(0), faces[:5], torch.zeros(9000))[0])  # type: ignore[arg-type]


def test_syncnets_sides_give_vectors_from_its_own_shapes() -> None:
    network = SyncNet(width=4).eval()
    assert network.lips(torch.zeros(1, 3, 5, 224, 224)).shape == network.sound(torch.zeros(1, 1, 13, 20)).shape
    with torch.device("meta"):
        state = SyncNet().state_dict()
    shapes = {
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netfclip.3.weight": (1024, 512),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_syncnets_crop_begins_at_the_face_and_reaches_below_and_beside_it() -> None:
    points = points_at(9, 100.0, 20.0)
    points[4] = np.nan
    low, high = points[0, :468].min(0), points[0, :468].max(0)
    half, (x, y) = (high - low).max() / 2, (low + high) / 2
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    frames = torch.stack([columns, rows, rows * 0], -1).to(torch.uint8).expand(9, -1, -1, -1)
    crop = sync_crops(frames, points).float()
    assert crop.shape == (9, 224, 224, 3) and torch.equal(crop[4], crop[0])
    assert crop[0, :, 0, 0].mean() == pytest.approx(x - 1.4 * half, abs=1.5)
    assert crop[0, 0, :, 1].mean() == pytest.approx(y - half, abs=1.5)
    assert crop[0, -1, :, 1].mean() == pytest.approx(y + 1.8 * half, abs=2)


def test_pairs_are_found_by_name_whatever_the_ending(tmp_path: Path) -> None:
    for name in ("made/a.mp4", "made/b.mp4", "made/s/c.webm", "true/a.mov", "true/s/c.mp4", "true/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pairs, alone = find_pairs(tmp_path / "made", tmp_path / "true")
    assert [name for name, _, _ in pairs] == ["a", "s/c"] and alone == ["b", "d"]
    (tmp_path / "true/a.mp4").touch()
    with pytest.raises(ConfigError, match="has the same name"):
        find_pairs(tmp_path / "made", tmp_path / "true")

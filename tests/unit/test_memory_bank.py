from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.errors import CheckpointError, ConfigError, NumericalError
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.sampling.memory_bank import MemoryBank, MemorySettings

FRAME = (2, 4, 2, 3)  # b c h w


def portrait() -> Tensor:
    return torch.randn(FRAME, generator=torch.Generator().manual_seed(1))


def video(frames: int) -> Tensor:
    """Frames numbered from 0: every value of frame i is i. Shapes: -> (b, f, c, h, w)."""
    return torch.arange(frames).float().view(1, -1, 1, 1, 1).expand(2, -1, *FRAME[1:])


def numbers(memory: Tensor) -> list[float]:
    return memory[0, :, 0, 0, 0].tolist()


def test_a_cold_bank_repeats_the_portrait() -> None:
    bank = MemoryBank(recent=2, anchors=1)
    bank.reset(portrait())
    torch.testing.assert_close(bank.read(), portrait()[:, None].expand(-1, 3, -1, -1, -1))


@given(
    clips=st.lists(st.integers(1, 5), min_size=1, max_size=6), recent=st.integers(0, 4), anchors=st.integers(0, 4)
)
def test_the_bank_reads_anchors_then_the_last_frames_whatever_the_clip_lengths(
    clips: list[int], recent: int, anchors: int
) -> None:
    bank, frames = MemoryBank(recent, anchors), video(sum(clips))
    bank.reset(torch.full(FRAME, -1.0))
    for clip in frames.split(clips, dim=1):
        bank.write(clip)
    total = sum(clips)
    early = list(range(total))[: max(0, anchors - 1)]
    expected_anchors = ([-1] + early + [-1] * anchors)[:anchors]
    expected_recent = ([-1] * recent + list(range(total)))[total:][:recent] if recent else []
    assert numbers(bank.read()) == expected_anchors + expected_recent


def test_the_size_of_the_bank_does_not_depend_on_the_length() -> None:
    bank = MemoryBank(2, 1)
    bank.reset(portrait())
    for _ in range(20):
        bank.write(video(16))
        assert bank.read().shape == (2, 3, *FRAME[1:])
        assert bank.state_dict()["recent"].untyped_storage().nbytes() == 2 * 2 * 4 * 2 * 3 * 4


def test_what_is_written_is_copied() -> None:
    bank, clip = MemoryBank(2), torch.ones(2, 2, *FRAME[1:])
    bank.reset(portrait())
    bank.write(clip)
    clip.zero_()
    assert (bank.read() == 1).all()


def test_memory_noise_has_the_asked_strength_and_repeats() -> None:
    def read(seed: int) -> Tensor:
        bank = MemoryBank(200, 1, settings=MemorySettings(noise_sigma=0.3), seed=seed)
        bank.reset(torch.zeros(FRAME))
        return bank.read()

    memory = read(0)
    assert (memory[:, :1] == 0).all()  # anchors stay clean
    assert memory[:, 1:].std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(memory, read(0)) and not torch.equal(memory, read(1))


def test_matching_statistics_gives_recent_frames_those_of_the_portrait() -> None:
    bank = MemoryBank(3, settings=MemorySettings(match_statistics=True))
    bank.reset(portrait())
    bank.write(5 + 3 * torch.randn(2, 3, *FRAME[1:], generator=torch.Generator().manual_seed(2)))
    memory = bank.read()
    torch.testing.assert_close(memory.mean((1, 3, 4)), portrait().mean((2, 3)), atol=1e-4, rtol=1e-4)
    spread = portrait().std((2, 3), correction=0)
    torch.testing.assert_close(memory.std((1, 3, 4), correction=0), spread, atol=1e-4, rtol=1e-4)


def test_a_saved_bank_continues_exactly(tmp_path: Path) -> None:
    settings = MemorySettings(noise_sigma=0.1, match_statistics=True, drift_level=0.7)
    bank = MemoryBank(2, 3, settings=settings, seed=7)
    bank.reset(portrait())
    bank.write(video(1))
    bank.save(tmp_path / "bank.safetensors")
    loaded = MemoryBank.load(tmp_path / "bank.safetensors")
    for b in (bank, loaded):
        b.write(video(4))
    assert torch.equal(bank.read(), loaded.read())
    assert loaded.settings == settings and loaded.seed == 7 and loaded.clips_written == 2


def test_a_bank_for_a_model_has_its_size_and_noise() -> None:
    config = DiTConfig(hidden_size=32, depth=1, num_heads=1, memory_frames=3, anchor_frames=2, memory_noise=0.05)
    bank = MemoryBank.for_model(config)
    assert (bank.recent, bank.anchors, bank.settings.noise_sigma) == (3, 2, 0.05)


def test_what_is_no_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty"):
        MemoryBank().read()
    bank = MemoryBank(2)
    bank.reset(portrait())
    with pytest.raises(ConfigError, match="reset"):
        bank.write(torch.zeros(2, 3, 4, 9, 9))
    with pytest.raises(NumericalError, match="NaN"):
        bank.write(torch.full((2, 3, *FRAME[1:]), float("nan")))
    assert torch.isfinite(bank.read()).all()
    with pytest.raises(ConfigError, match="recent"):
        MemoryBank(3).load_state_dict(bank.state_dict())
    save_file({"x": torch.zeros(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match="not a memory bank"):
        MemoryBank.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_settings_that_cannot_be_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="memory noise"):
        MemorySettings(noise_sigma=share)
    with pytest.raises(ConfigError, match="drift level"):
        MemorySettings(drift_level=share)
    with pytest.raises(ConfigError, match="match_statistics=\\[1\\] must be true or false"):
        MemorySettings(match_statistics=[1])  # type: ignore[arg-type]


def test_the_frames_move_to_the_device_of_the_run() -> None:
    bank = MemoryBank(2, 1)
    bank.reset(torch.zeros(1, 4, 2, 2))
    bank.to("meta")
    assert bank.read().device.type == "meta"


def test_a_file_is_the_same_bytes_whenever_it_is_written_and_notices_any_change_of_a_value(tmp_path: Path) -> None:
    bank = MemoryBank(2, 1)
    bank.reset(torch.zeros(1, 4, 2, 2))
    files = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for file in files:
        bank.save(file)
    assert len({file.read_bytes() for file in files}) == 1
    data = bytearray(files[0].read_bytes())
    data[-3] ^= 1
    files[0].write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged memory bank"):
        MemoryBank.load(files[0])
    text = files[1].read_bytes().replace(b'clips_written\\": 0', b'clips_written\\": 9')
    assert text != files[1].read_bytes()
    files[1].write_bytes(text)
    with pytest.raises(CheckpointError, match="damaged memory bank"):
        MemoryBank.load(files[1])

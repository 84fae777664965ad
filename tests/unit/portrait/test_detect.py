from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.errors import CheckpointError, DependencyError, FaceNotFoundError
from letstalk_core.media.portrait.detect import KorniaFaceDetector, largest_face


def boxes(*rows: tuple[float, float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def test_the_largest_sure_face_is_chosen() -> None:
    rows = boxes((0, 0, 10, 10, 0.9), (5, 5, 45, 55, 0.8), (0, 0, 90, 90, 0.2))
    found = largest_face(rows)
    assert found[:4].tolist() == [5, 5, 45, 55]


@pytest.mark.parametrize(
    "rows",
    [
        boxes(),
        boxes((0, 0, 9, 9, 0.4)),
        boxes((5, 5, 5, 9, 0.9)),
        boxes((0, 0, float("nan"), 9, 0.9)),
        torch.zeros(3),
    ],
)
def test_a_picture_without_a_usable_face_is_reported(rows: Tensor) -> None:
    with pytest.raises(FaceNotFoundError):
        largest_face(rows)


def test_missing_weights_are_never_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("downloads"))
    for path in (None, tmp_path / "missing.pth"):
        with pytest.raises(DependencyError, match="download https.* to this place"):
            KorniaFaceDetector(path)
    assert list(tmp_path.iterdir()) == []


def _weights() -> dict[str, Tensor]:
    from kornia.contrib.face_detection import YuNet

    torch.manual_seed(0)
    return dict(YuNet("test", pretrained=False).state_dict())


@pytest.mark.parametrize(
    ("suffix", "shape"), [("pth", (200, 300)), ("safetensors", (33, 700)), ("safetensors", (1100, 500))]
)
def test_the_detector_gives_boxes_in_the_picture(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    path = tmp_path / f"yunet.{suffix}"
    if suffix == "pth":
        torch.save(_weights(), path)
    else:
        save_file(_weights(), path)
    detector = KorniaFaceDetector(path, confidence=0.0)
    torch.manual_seed(0)
    found = detector(torch.randint(0, 256, (*shape, 3), dtype=torch.uint8))
    assert found.ndim == 2 and found.shape[1] == 5 and found.dtype == torch.float32
    height, width = shape
    assert (found[:, :4] >= 0).all() and (found[:, :4] <= torch.tensor([width, height] * 2)).all()


def test_files_that_are_not_yunet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({1: 2}, tmp_path / "number.pth")
    (tmp_path / "damaged.pth").write_bytes(b"\x80\x02h\x05.")  # asks for an object that was never stored: KeyError
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("text.pth", "other.pth", "list.pth", "number.pth", "damaged.pth", "other.safetensors"):
        with pytest.raises(CheckpointError, match="YuNet") as caught:
            KorniaFaceDetector(tmp_path / name)
        assert "\n" not in str(caught.value)

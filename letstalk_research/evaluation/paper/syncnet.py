"""SyncNet (Chung and Zisserman 2016): how well lips and sound fit, Sync-C and Sync-D.

Five frames of a face and 0.2 s of sound become a vector each; their distance is small where they fit. Names of
layers are those of the authors' PyTorch port, so its file loads.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..face_curves import bridged
from ..metrics import Array

FPS, SIDE = 25, 224
FRAMES, AUDIO_STEPS, STEPS_PER_FRAME = 5, 20, 4  # of a window; steps of 10 ms
SHIFT = 15  # frames that sound is moved by, at most
CROP = 0.4  # around a face, in its sides
RATE, WINDOW, HOP, FFT, FILTERS, COEFFICIENTS, LIFTER = 16_000, 400, 160, 512, 26, 13, 22


def _layers(
    convolution: type[nn.Module], norm: type[nn.Module], *rows: tuple[object, ...] | nn.Module
) -> nn.Module:
    """Rows are arguments of a convolution, which batch norm and ReLU follow, or a pooling."""
    layers: list[nn.Module] = []
    for row in rows:
        if isinstance(row, nn.Module):
            layers.append(row)
        else:
            layers += [convolution(*row), norm(row[1]), nn.ReLU()]
    return nn.Sequential(*layers)


def _head(width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, out))


class SyncNet(nn.Module):
    """`sound` and `lips` give vectors (b, 1024). `width` is for tests."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w = width
        self.netcnnaud = _layers(
            *(nn.Conv2d, nn.BatchNorm2d),
            *((1, w, 3, 1, 1), nn.MaxPool2d(1, 1)),
            *((w, 3 * w, 3, 1, 1), nn.MaxPool2d(3, (1, 2))),
            *((3 * w, 6 * w, 3, 1, 1), (6 * w, 4 * w, 3, 1, 1), (4 * w, 4 * w, 3, 1, 1), nn.MaxPool2d(3, 2)),
            (4 * w, 8 * w, (5, 4)),
        )
        self.netcnnlip = _layers(
            *(nn.Conv3d, nn.BatchNorm3d),
            *((3, 3 * w // 2, (5, 7, 7), (1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2))),
            *((3 * w // 2, 4 * w, (1, 5, 5), (1, 2, 2), (0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))),
            *((4 * w, 4 * w, (1, 3, 3), 1, (0, 1, 1)),) * 3,
            *(nn.MaxPool3d((1, 3, 3), (1, 2, 2)), (4 * w, 8 * w, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = _head(8 * w, 16 * w), _head(8 * w, 16 * w)

    def sound(self, x: Tensor) -> Tensor:
        """Coefficients (b, 1, 13, 20)."""
        y: Tensor = self.netfcaud(self.netcnnaud(x).flatten(1))
        return y

    def lips(self, x: Tensor) -> Tensor:
        """Faces (b, 3, 5, 224, 224), blue first, 0 to 255."""
        y: Tensor = self.netfclip(self.netcnnlip(x).flatten(1))
        return y


def _mel_filters() -> Array:
    """Triangles over the bins of the transform (FILTERS, FFT // 2 + 1), even in mel, edges on whole bins."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = np.floor((FFT + 1) * 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1) / RATE)
    bins = np.arange(FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = (bins - low) / (middle - low), (high - bins) / (high - middle)
    inside_up, inside_down = (bins >= low) & (bins < middle), (bins >= middle) & (bins < high)
    return np.where(inside_up, up, np.where(inside_down, down, 0.0))


def mfcc(waveform: Tensor) -> Array:
    """Cepstral coefficients (n, 13) of 16 kHz samples in [-1, 1], 100 a second, as of python_speech_features.

    Windows of 25 ms without a taper, pre-emphasis, 26 filters, lifter 22, the frame's energy as first coefficient.
    """
    x = waveform.double().numpy() * 32768  # whole numbers of 16 bits, as in a WAV file
    x = np.append(x[:1], x[1:] - 0.97 * x[:-1])
    count = 1 + max(0, -(-(len(x) - WINDOW) // HOP))
    x = np.pad(x, (0, max(0, (count - 1) * HOP + WINDOW - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP][:count]
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT
    tiny = np.finfo(float).eps
    energy, bands = power.sum(1), power @ _mel_filters().T
    energy, bands = np.where(energy == 0, tiny, energy), np.where(bands == 0, tiny, bands)
    k, n = np.arange(COEFFICIENTS)[:, None], np.arange(FILTERS)
    # DCT-II; row 0 is replaced below
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * FILTERS)) * np.sqrt(2 / FILTERS)
    lift = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    found: Array = np.log(bands) @ basis.T * lift
    found[:, 0] = np.log(energy)
    return found


def sync_crops(frames: Tensor, points: Array) -> Tensor:
    """Faces as SyncNet's own pipeline cuts them out: (t, h, w, 3) and points (t, 478, 2) -> (t, 224, 224, 3).

    Where no face was found, the box goes straight from that before to the next. Middle and size are
    smoothed over 13 frames, and 0.4 of the sides are added below and beside it.
    """
    low, high = points[:, :468].min(1), points[:, :468].max(1)
    boxes = np.column_stack([*((low + high) / 2).T, (high - low).max(1) / 2])
    boxes = np.column_stack([bridged(column) for column in boxes.T])
    padded = np.pad(boxes, ((6, 6), (0, 0)), "edge")
    boxes = np.median(np.lib.stride_tricks.sliding_window_view(padded, 13, 0), -1)
    faces = []
    for frame, (x, y, half) in zip(frames, boxes, strict=True):
        pad = int(half * (1 + 2 * CROP))
        wide = F.pad(frame.movedim(-1, 0), (pad, pad, pad, pad), value=110)
        top, left, side = int(y + pad - half), int(x + pad - half * (1 + CROP)), int(2 * half * (1 + CROP))
        cut = wide[None, :, top : top + side, left : left + side].float()
        # Without antialiasing, as the network's own pipeline does it.
        faces.append(F.interpolate(cut, size=(SIDE, SIDE), mode="bilinear").round().to(torch.uint8))
    return torch.cat(faces).movedim(1, -1)


@torch.no_grad()
def sync_scores(network: SyncNet, faces: Tensor, waveform: Tensor, batch: int = 20) -> tuple[float, float, int]:
    """Sync-C, Sync-D and the lag of the sound in frames, of faces (t, 224, 224, 3) at 25 fps and 16 kHz sound.

    Sync-D is the smallest mean distance over shifts of up to 15 frames, Sync-C the median over shifts minus it.
    NaN for less than six frames.
    """
    count = min(len(faces), len(waveform) * FPS // RATE) - FRAMES
    if count < 1:
        return float("nan"), float("nan"), 0
    device = next(network.parameters()).device
    steps = torch.from_numpy(mfcc(waveform)).float().T
    pictures = faces.flip(-1).movedim(-1, 0).float()
    lips, sounds = [], []
    for first in range(0, count, batch):
        at = range(first, min(first + batch, count))
        seen = torch.stack([pictures[:, i : i + FRAMES] for i in at])
        begins = [i * STEPS_PER_FRAME for i in at]
        heard = torch.stack([steps[None, :, i : i + AUDIO_STEPS] for i in begins])
        lips.append(network.lips(seen.to(device)))
        sounds.append(network.sound(heard.to(device)))
    a, b = torch.cat(lips), F.pad(torch.cat(sounds), (0, 0, SHIFT, SHIFT))
    distances = torch.stack([F.pairwise_distance(a, b[s : s + count]) for s in range(2 * SHIFT + 1)]).mean(1)
    best = int(distances.argmin())
    return float(distances.median() - distances[best]), float(distances[best]), SHIFT - best

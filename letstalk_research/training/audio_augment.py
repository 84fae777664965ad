"""Disturbances that make synthetic speech sound like recordings: room, microphone, noise. Timing never changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from letstalk_core.media.audio.alignment import SAMPLE_RATE


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def disturb(waves: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Disturb each waveform with this probability, by a few of: equaliser, low-pass, reverb, babble, noise, clip.

    Shapes: (b, samples) -> same, float32. Randomness comes from the generator alone.
    """
    out = [
        _one(w, waves[(i + 1) % len(waves)], generator) if _uniform(generator, 0, 1) < probability else w
        for i, w in enumerate(waves)
    ]
    return torch.stack(out)


def _one(wave: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    samples = wave.numel()
    size = 2 ** math.ceil(math.log2(samples + SAMPLE_RATE // 2))
    frequencies = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum = torch.fft.rfft(wave, size) * _equaliser(frequencies, generator)
    if _uniform(generator, 0, 1) < 0.4:
        spectrum = spectrum * torch.fft.rfft(_room(generator), size)
    y: Tensor = torch.fft.irfft(spectrum, size)[:samples]
    power = y.square().mean().sqrt() + 1e-5
    if _uniform(generator, 0, 1) < 0.2:  # somebody else talks in the background
        y = y + other * power / (other.square().mean().sqrt() + 1e-5) * 10 ** (-_uniform(generator, 12, 30) / 20)
    if _uniform(generator, 0, 1) < 0.7:
        noise = _noise(samples, generator)
        y = y + noise * power * 10 ** (-_uniform(generator, 8, 45) / 20)
    if _uniform(generator, 0, 1) < 0.15:  # overdriven microphone
        drive = _uniform(generator, 1, 4) / (3 * power)
        y = torch.tanh(y * drive) / drive
    return y


def _equaliser(frequencies: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth gain over frequency: a tilt, two bumps, at times the high-pass and low-pass of a telephone."""
    gain: Tensor
    octaves = torch.log2(frequencies.clamp(min=40.0) / 1000.0)
    decibel = _uniform(generator, -3, 3) * octaves
    for _ in range(2):
        centre, width = _uniform(generator, -3, 3), _uniform(generator, 0.3, 1.0)
        decibel = decibel + _uniform(generator, -8, 8) * torch.exp(-(((octaves - centre) / width) ** 2))
    gain = 10 ** (decibel.clamp(-24, 18) / 20)
    if _uniform(generator, 0, 1) < 0.4:
        cutoff = 1000 * 2 ** _uniform(generator, 1.3, 3.0)  # 2.5 to 8 kHz
        gain = gain / (1 + (frequencies / cutoff) ** 8)
    if _uniform(generator, 0, 1) < 0.3:
        cutoff = _uniform(generator, 80, 350)
        gain = gain / (1 + (cutoff / frequencies.clamp(min=1.0)) ** 6)
    return gain


def _room(generator: torch.Generator) -> Tensor:
    """Impulse response: the direct sound first, so that timing stays, then noise that dies away."""
    seconds = _uniform(generator, 0.1, 0.5)
    t = torch.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    tail = torch.randn(t.shape, generator=generator) * 10 ** (-3 * t / seconds)
    tail[: int(SAMPLE_RATE * _uniform(generator, 0.002, 0.02))] = 0
    response = tail / tail.square().sum().sqrt() * _uniform(generator, 0.1, 0.7)
    response[0] = 1.0
    return response


def _noise(samples: int, generator: torch.Generator) -> Tensor:
    """Noise of unit power between white and brown."""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    slope = _uniform(generator, 0, 1)
    weights = torch.arange(1, spectrum.numel() + 1, dtype=torch.float32) ** -slope
    noise = torch.fft.irfft(spectrum * weights, samples)
    unit: Tensor = noise / (noise.square().mean().sqrt() + 1e-9)
    return unit

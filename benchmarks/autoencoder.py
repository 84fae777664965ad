"""Decoding of DC-AE against diffusers with the same weights."""

from __future__ import annotations

import dataclasses

import torch

from benchmarks.harness import Options, Row, identical, paired, randomise, ratio, seconds
from letstalk_core.networks.autoencoder.convert import config_to_diffusers
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.configs import AutoencoderConfig
from letstalk_core.networks.presets import AUTOENCODER

REACH = 1.3
SIZE = 512  # pixels


def run(options: Options) -> list[Row]:
    """A row for each model and dtype."""
    names = ("f32c32-sana-1.1",) if options.quick else ("f32c32-sana-1.1", "lite-f32c32-sana-1.1")
    return [_row(name, dtype, options) for name in names for dtype in options.dtypes]


def narrowed(config: AutoencoderConfig) -> AutoencoderConfig:
    """An eighth of the width, for `--quick`."""
    widths = tuple(width // 8 for width in config.decoder_block_out_channels)
    return dataclasses.replace(config, encoder_block_out_channels=widths, decoder_block_out_channels=widths)


@torch.inference_mode()
def _row(name: str, dtype: torch.dtype, options: Options) -> Row:
    import diffusers

    config, size = AUTOENCODER[name], SIZE
    if options.quick:
        config, size = narrowed(config), 128
    with torch.device("meta"):
        reference = diffusers.AutoencoderDC.from_config(config_to_diffusers(config)).decoder
    theirs = randomise(reference.to_empty(device=options.device)).to(dtype)
    ours = AutoencoderDC(config, device="meta").decoder
    ours.load_state_dict(theirs.state_dict(), assign=True)  # the same memory
    ours.eval().requires_grad_(False)
    grid = size // config.spatial_factor
    latents = torch.randn(1, config.latent_channels, grid, grid).to(options.device, dtype)
    same, words = identical(ours(latents).float(), theirs(latents).float())
    times = paired({"ours": lambda: ours(latents), "diffusers": lambda: theirs(latents)}, options, long=True)
    faster, text = ratio(times["diffusers"], times["ours"])
    note = f"{seconds(times['ours'])} against {seconds(times['diffusers'])}; {words}"
    return Row(
        what=f"DC-AE {name} decode, {size} px, {str(dtype)[6:]}",
        against="diffusers AutoencoderDC, same weights",
        result=text,
        reach=f">= {REACH}x, same output",
        reached=faster >= REACH and (same or dtype != torch.float32),
        note=note,
        limit="both sides spend nearly all of it in the same 3x3 convolutions of the library, at its full speed",
    )

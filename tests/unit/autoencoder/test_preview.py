"""Preview colours fitted to latents."""

from __future__ import annotations

import torch

from letstalk_core.networks.autoencoder.preview import fit_latent_preview


def test_a_linear_relation_between_latents_and_colours_is_found() -> None:
    latents = torch.randn(4, 3, 8, 8)
    colours = torch.einsum("n c h w, c k -> n k h w", latents, torch.eye(3) * 0.5) + 0.1
    factors, bias = fit_latent_preview(latents, torch.nn.functional.interpolate(colours, scale_factor=4))
    torch.testing.assert_close(torch.tensor(factors), torch.eye(3) * 0.5, rtol=0, atol=2e-3)  # the ridge
    torch.testing.assert_close(torch.tensor(bias), torch.full((3,), 0.1), rtol=0, atol=2e-3)


def test_one_small_picture_is_enough_for_finite_colours() -> None:
    factors, bias = fit_latent_preview(torch.randn(1, 128, 4, 4), torch.rand(1, 3, 256, 256))
    assert len(factors) == 128 and torch.isfinite(torch.tensor([*factors, bias])).all()

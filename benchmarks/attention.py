"""The linear attention module against that of diffusers' SANA."""

from __future__ import annotations

import torch

from benchmarks.harness import Options, Row, identical, paired, randomise, ratio, seconds
from letstalk_core.networks.nn.attention import LinearAttention
from letstalk_core.networks.nn.layers import Layers

REACH = 1.1
WIDTH = 768  # of preset B


def run(options: Options) -> list[Row]:
    """A row for each number of tokens and dtype."""
    counts = (256, 1024) if options.quick else (256, 512, 1024, 4096, 16384)
    return [_row(count, dtype, options) for dtype in reversed(options.dtypes) for count in counts]


@torch.inference_mode()
def _row(tokens: int, dtype: torch.dtype, options: Options) -> Row:
    from diffusers.models.attention_processor import Attention, SanaLinearAttnProcessor2_0

    theirs = Attention(
        WIDTH, heads=WIDTH // 32, dim_head=32, bias=False, out_bias=True, processor=SanaLinearAttnProcessor2_0()
    )
    theirs = randomise(theirs).to(options.device, dtype)
    ours = LinearAttention(WIDTH, layers=Layers(device=options.device, dtype=dtype)).requires_grad_(False)
    ours.qkv.weight.copy_(torch.cat([theirs.to_q.weight, theirs.to_k.weight, theirs.to_v.weight]))
    ours.out.load_state_dict(theirs.to_out[0].state_dict())
    x = torch.randn(1, tokens, WIDTH).to(options.device, dtype)
    _, words = identical(ours(x).float(), theirs(x).float())
    repeats = max(1, 4096 // tokens)
    times = paired(
        {
            "ours": lambda: [ours(x) for _ in range(repeats)],
            "diffusers": lambda: [theirs(x) for _ in range(repeats)],
        },
        options,
    )
    faster, text = ratio(times["diffusers"], times["ours"])
    half = dtype != torch.float32
    return Row(
        what=f"linear attention module, {tokens} tokens of {WIDTH}, {str(dtype)[6:]}",
        against="diffusers SanaLinearAttnProcessor2_0",
        result=text,
        reach=f">= {REACH}x" if half else "",
        reached=faster >= REACH if half else None,
        note=f"{seconds([t / repeats for t in times['ours']])} a call; {words}",
        limit="the projections, which are the same products on both sides, take most of it",
    )

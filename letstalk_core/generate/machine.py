"""What of a machine the numbers of a run depend on: the same frames come from the same of these only."""

from __future__ import annotations

from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """JSON values by names for people. Versions and instruction sets choose kernels, which round differently."""
    found: dict[str, Any] = {"torch": torch.__version__}
    if device.type == "cpu":
        found["threads"] = torch.get_num_threads()  # sums are split among them
        found["cpu_instructions"] = torch.backends.cpu.get_cpu_capability()
    elif device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found

"""The commands that train and measure. `show_log` is what long ones say on stderr."""

from __future__ import annotations

import logging


def show_log() -> None:
    """Print what the packages log; a host that has set up logging decides itself how it looks."""
    for name in ("letstalk_core", "letstalk_research"):
        logger = logging.getLogger(name)
        if not logger.handlers and not logging.getLogger().handlers:
            logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logger.setLevel(logging.INFO)

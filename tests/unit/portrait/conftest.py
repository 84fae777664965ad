from __future__ import annotations

import pytest
from torch import Tensor

from letstalk_core.media.portrait.image import load_portrait

from .pictures import PORTRAITS


@pytest.fixture(scope="session")
def portrait() -> Tensor:
    """The first of the bundled drawings."""
    return load_portrait(PORTRAITS[0])

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

DATA = os.environ.get("SOL_DATA")


@pytest.fixture(scope="session")
def data():
    """The folder with real data."""
    if not DATA:
        pytest.skip("SOL_DATA is not set")
    return Path(DATA)

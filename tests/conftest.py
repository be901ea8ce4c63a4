"""What all tests share."""

import pytest
import torch
from launching import entry, nothing_stays

__all__ = ["entry", "nothing_stays"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests run beside each other; tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)

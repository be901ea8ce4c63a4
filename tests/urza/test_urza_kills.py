"""A process that is killed while it stores loses nothing stored, and leaves nothing false."""

from pathlib import Path

import pytest

from esper_lightning.evidence import kills


@pytest.mark.slow
@pytest.mark.integration
def test_what_was_stored_survives_every_kill(root: Path) -> None:
    found = kills.run(root, kills=20, seed=1)
    assert found.kills == 20
    assert (found.lost, found.damaged) == (0, 0)
    assert found.stored > 0
    assert found.within > 0, "no kill came within a storing"
    assert found.most_left <= 4, "an unfinished file, or the files of one version"
    assert found.upper == pytest.approx(1 - 0.05 ** (1 / 20))

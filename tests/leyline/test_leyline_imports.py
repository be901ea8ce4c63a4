"""The ground floor is light: it knows neither torch nor any other subsystem."""

import subprocess
import sys

SCRIPT = """
import sys
import esper_lightning.leyline
above = {"torch", "numpy", "lightning", "hydra", "omegaconf"}
above |= {f"esper_lightning.{name}" for name in (
    "callbacks", "evidence", "kasmina", "karn", "tamiyo", "tolaria", "nissa", "urza"
)}
print(sorted(above & set(sys.modules)))
"""


def test_leyline_imports_neither_torch_nor_another_subsystem() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

"""Where measurements are written, with the machine they were made on."""

import os
import platform
from pathlib import Path
from typing import Any

import msgspec
import torch


def machine() -> dict[str, Any]:
    """What a reader must know to judge a time."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def write(path: Path, command: str, figures: object) -> None:
    """Write ``figures`` as JSON, beside the command and the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"command": command, "machine": machine(), "figures": figures}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=2))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

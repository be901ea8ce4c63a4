"""One artifact in a process of its own: ``... -m esper_lightning.tezzeret.child STEP FOLDER KEY``.

The step ``make`` reads ``recipe.json`` and writes the two parts of a bundle; ``examine`` loads them
as a later run would, in a process that compiled nothing, and writes ``examination.json``.
"""

import atexit
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from esper_lightning.leyline import decode, encode
from esper_lightning.tezzeret.bundle import CODE, LIBRARIES, load, pack_libraries
from esper_lightning.tezzeret.examine import examine
from esper_lightning.tezzeret.recipe import Recipe, key, this_machine
from esper_lightning.tezzeret.workshop import CACHE, CHANGED, EXAMINATION, RECIPE


def make(asked: Recipe, folder: Path) -> None:
    """Compile forward and backward pass, and write both parts."""
    # A second backward pass through the same graph is allowed, as in eager. This is told in the
    # artifact: torch's own setting (donated_buffer) would have to be made where it runs as well.
    graphs: Any = importlib.import_module("torch._functorch._aot_autograd.graph_compile")
    graphs.collect_bw_donated_buffer_idxs = lambda *_, **__: []
    branch = asked.build()
    branch(asked.input())  # what fails in eager, too, says why more plainly there
    compiled: Any = torch.compile(branch, fullgraph=True, dynamic=False)
    made = compiled.forward.aot_compile(((asked.input(),), {}))
    made.save_compiled_function(str(folder / CODE))
    (folder / LIBRARIES).write_bytes(pack_libraries(folder / CACHE))


def main(step: str, place: str, name: str) -> None:
    """Run one step.

    Args:
        step: ``make`` or ``examine``.
        place: folder of the artifact.
        name: key under which the outcome will be kept.
    """
    _end_with_parent()
    folder = Path(place)
    asked: Recipe = decode((folder / RECIPE).read_bytes(), Recipe, what="recipe")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if key(asked, this_machine(asked.device)) != name:
        sys.exit(CHANGED)
    torch.manual_seed(0)
    if step == "make":
        make(asked, folder)
        return
    compiled = load((folder / CODE).read_bytes(), (folder / LIBRARIES).read_bytes())
    (folder / EXAMINATION).write_bytes(encode(examine(asked, compiled)))


def _end_with_parent() -> None:
    """End, with every compiler that was started, when the process that waits for this one dies.

    Its end closes the pipe that is this one's standard input. A process of the same group waits for
    that, so that it happens in moments, too, in which Python does not run here.
    """
    waiting = os.posix_spawn("/bin/sh", ["sh", "-c", "read line; kill -KILL 0"], os.environ)

    def done() -> None:
        os.kill(waiting, signal.SIGKILL)
        os.waitpid(waiting, 0)

    atexit.register(done)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Export what a run has grown: ``python -m esper_lightning.export CHECKPOINT --program net.pt2``.

docs/export.md explains what the two forms are for.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule

from esper_lightning.conf import trained
from esper_lightning.kasmina import save_program, save_source
from esper_lightning.leyline import EsperError, InvalidArgument


def main(arguments: Sequence[str]) -> None:
    """Read the checkpoint, write what was asked for, say where it is."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of a run of train.py")
    parser.add_argument("--program", type=Path, metavar="FILE.pt2", help="torch.export program")
    parser.add_argument("--source", type=Path, metavar="FOLDER", help="source and its safetensors")
    parser.add_argument("--config", type=Path, help="the run's config.yaml; found by itself")
    parser.add_argument("--with-seeds", action="store_true", help="keep live seeds as they stand")
    asked = parser.parse_args(arguments)
    if asked.program is None and asked.source is None:
        parser.error("give --program, --source or both")
    try:
        _export(asked)
    except EsperError as error:
        sys.exit(f"not exported: {error}")


def _export(asked: argparse.Namespace) -> None:
    module, network = trained.load(
        asked.checkpoint,
        asked.config or trained.config_of(asked.checkpoint),
        data_kind=LightningDataModule,
        module_kind=LightningModule,
    )
    if module.example_input_array is None:
        raise InvalidArgument(
            f"an export needs one batch of inputs: set self.example_input_array in "
            f"{type(module).__name__}"
        )
    for save, path in ((save_program, asked.program), (save_source, asked.source)):
        if path is not None:
            written = save(network, module.example_input_array, path, with_seeds=asked.with_seeds)
            print(f"wrote {written}")


if __name__ == "__main__":
    # torch 2.13 itself; nothing a caller could do.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated", category=FutureWarning)
    main(sys.argv[1:])

"""What a run was asked for: as a tree to read, a file to keep, and numbers for the loggers."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.tree import Tree

CONFIG_NAME = "config.yaml"
"""File name of the resolved configuration, beside the run's other results."""


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, every interpolation filled in."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return dict(plain)


def digest(cfg: DictConfig) -> str:
    """SHA-256 of what was asked for, without where it is written to."""
    asked: Any = OmegaConf.to_container(cfg, resolve=False)
    asked.pop("paths", None)
    return hashlib.sha256(
        OmegaConf.to_yaml(OmegaConf.create(asked), sort_keys=True).encode()
    ).hexdigest()


def save(cfg: DictConfig, folder: Path | str) -> Path:
    """Write the resolved configuration to ``config.yaml`` in ``folder``."""
    path = Path(folder) / CONFIG_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(resolved(cfg))))
    return path


def tree(cfg: DictConfig) -> Tree:
    """The resolved configuration for people, one branch a group."""
    root = Tree("configuration", style="dim", guide_style="dim")
    plain = resolved(cfg)
    for name, value in sorted(plain.items(), key=lambda item: isinstance(item[1], dict)):
        _grow(root, name, value)
    return root


def _grow(parent: Tree, name: str, value: Any) -> None:
    if isinstance(value, dict) and value:
        target = value.get("_target_")
        shown = "" if target is None else f" [not dim]{str(target).rpartition('.')[2]}[/not dim]"
        branch = parent.add(f"{name}{shown}")
        for key, item in value.items():
            if key != "_target_":
                _grow(branch, str(key), item)
    else:
        text = "none" if value in ({}, None) else str(value)
        parent.add(f"{name}: [not dim]{text.replace('[', chr(92) + '[')}[/not dim]")


def hyperparameters(cfg: DictConfig, **more: Any) -> dict[str, Any]:
    """One flat mapping for the loggers: ``optimizer/lr`` to its value, and ``more``.

    Where files lie says nothing about the run, and is left out; so are loggers and callbacks that
    only watch.
    """
    left_out = {"paths", "logger", "callbacks", "print_config", "list_slots"}
    plain = {name: value for name, value in resolved(cfg).items() if name not in left_out}
    return {**dict(_flat(plain)), **more}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float | str) or value is None:
            yield f"{prefix}{name}", value
        else:
            yield f"{prefix}{name}", str(value)


def metrics(results: Mapping[str, float]) -> Table:
    """Metrics for people, where there is no summary of growth."""
    table = Table(box=None)
    for name, value in sorted(results.items()):
        table.add_row(name, f"{value:.4g}")
    return table

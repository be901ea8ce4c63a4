"""From a node of the configuration to an object."""

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from esper_lightning.leyline import EsperError, InvalidArgument

EXTRAS = {
    "AimLogger": ("aim", "aim"),
    "CometLogger": ("comet_ml", "comet"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "NeptuneLogger": ("neptune", "neptune"),
    "TensorBoardLogger": ("tensorboard", "tensorboard"),
    "WandbLogger": ("wandb", "wandb"),
}
"""What a class needs that is not installed by default: its package, and the extra that has it."""

HYDRA_KEYS = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})
"""Names in a node that are instructions to Hydra, not arguments."""

Kind = TypeVar("Kind")


def build(node: Any, key: str, **arguments: Any) -> Any:
    """The object that a node with a ``_target_`` describes.

    Args:
        node: of the configuration; lists and mappings in it become plain ones.
        key: the node's place, for errors.
        arguments: more arguments.

    Raises:
        InvalidArgument: its package is not installed, its class cannot be imported, or an argument
            is not one of the class or not allowed by it.
    """
    package, extra = EXTRAS.get(str(node.get("_target_")).rpartition(".")[2], (None, ""))
    if package is not None and importlib.util.find_spec(package) is None:
        raise InvalidArgument(
            f"{key} needs the package {package!r}, which is not installed: "
            f"pip install 'esper-lightning[{extra}]'"
        )
    _check_nodes(node, key, arguments)
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if not isinstance(error.__cause__, EsperError):
            raise
        where = str(error).rpartition("full_key: ")[2] or key
        raise InvalidArgument(f"{where}: {error.__cause__}") from error


def build_all(group: Any, key: str, kind: type) -> list[Any]:
    """The objects of a group of named nodes, in their order; ``null`` ones are left out.

    Raises:
        InvalidArgument: a node has no ``_target_``, or does not make a ``kind``.
    """
    made = []
    for name, node in (group or {}).items():
        if node is None:
            continue
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            raise InvalidArgument(
                f"{key}.{name} must be a mapping with _target_ and arguments, or null to leave it "
                f"out, got {node!r}"
            )
        made.append(build(node, f"{key}.{name}"))
        if not isinstance(made[-1], kind):
            raise InvalidArgument(
                f"{key}.{name}._target_={node['_target_']} made a {type(made[-1]).__name__}, which "
                f"is not a {kind.__name__}; name a class of those, or drop it: {key}.{name}=null"
            )
    return made


def build_own(node: Any, key: str, kind: type[Kind]) -> Kind:
    """An object of the user's own, imported from the current directory as well.

    Args:
        node: dotted path of the class, of a function that makes one or of one that is made, or a
            mapping with the path as ``_target_`` and arguments.
        key: the node's place, for errors.
        kind: what it must be.

    Raises:
        InvalidArgument: the path does not import, arguments do not fit, or it is something else.
    """
    given = OmegaConf.create({"_target_": node}) if isinstance(node, str) else node
    if not isinstance(given, DictConfig) or not isinstance(given.get("_target_"), str):
        raise InvalidArgument(
            f"{key} must be a dotted path or a mapping with _target_, got {node!r}; "
            f"for example {key}=my_project.Mine or '{key}={{_target_: my_project.Mine, width: 8}}'"
        )
    path: str = given["_target_"]
    make = _imported(path, key)
    if isinstance(make, kind) and len(given) == 1:
        return make
    if not callable(make) or (isinstance(make, type) and not issubclass(make, kind)):
        raise InvalidArgument(f"{key}={path}: {make!r} is not a {kind.__name__}")
    hint = f"; they are given as '{key}={{_target_: {path}, name: value}}'"
    _check_arguments(make, given, key, path, hint=hint)
    made = build(given, key)
    if not isinstance(made, kind):
        raise InvalidArgument(
            f"{key}={path} made a {type(made).__name__}, which is not a {kind.__name__}"
        )
    return made


def _imported(path: str, key: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    where, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(where), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InvalidArgument(
            f"{key}={path} cannot be imported: {error}; give a dotted path, module.Class, that "
            f"imports from {here} or from an installed package"
        ) from error


def _check_nodes(node: Any, key: str, more: Mapping[str, Any]) -> None:
    """Compare the arguments in a node, and in those inside, with what their classes take."""
    if isinstance(node, ListConfig):
        for index, item in enumerate(node):
            _check_nodes(item, f"{key}[{index}]", {})
    elif isinstance(node, DictConfig):
        path: Any = node.get("_target_")
        if isinstance(path, str):
            try:
                make = hydra.utils.get_object(path)
            except (ImportError, ValueError, AttributeError) as error:
                raise InvalidArgument(
                    f"{key}._target_={path} cannot be imported: {error}"
                ) from error
            _check_arguments(make, {**node, **more}, key, path)
        if node.get("_recursive_") is False:  # its class makes what is inside
            return
        for name, item in node.items():
            _check_nodes(item, f"{key}.{name!s}", {})


def _check_arguments(
    make: Any, node: Mapping[Any, Any], key: str, path: str, *, hint: str = ""
) -> None:
    if "_args_" in node:
        return
    names = {str(name): None for name in node if str(name) not in HYDRA_KEYS}
    try:
        signature = inspect.signature(make)
    except ValueError:  # a builtin that does not tell
        return
    bind = signature.bind_partial if node.get("_partial_") else signature.bind
    try:
        bind(**names)
    except TypeError as error:
        taken = ", ".join(map(str, signature.parameters)) or "none"
        raise InvalidArgument(f"{key}: {path} {error}; its arguments are {taken}{hint}") from error

"""What is to be compiled, for which machine, and the key under which the outcome is kept."""

import hashlib
import importlib
import inspect
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from esper_lightning.karn import Blueprint, CountableBranch
from esper_lightning.leyline import (
    FeatureKind,
    InvalidArgument,
    ParameterValue,
    SlotShape,
    encode,
)

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

DEVICES = ("cpu", "cuda")

_FOREIGN = frozenset({"torch"} | sys.stdlib_module_names)
"""Packages whose versions are part of what :class:`Machine` tells."""

FORMAT = 1
"""Of artifacts; a new one makes every earlier artifact unknown."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One branch under one way of calling it in training.

    Attributes:
        blueprint: its name.
        source: ``module:Class`` of the branch.
        parameters: of the constructor, complete.
        shape: of the slot.
        batch: rows of the input.
        dtype: of weights and input.
        device: type of the device, ``cpu`` or ``cuda``.
        channels_last: memory format of a spatial input.
        input_requires_grad: whether a gradient flows back into the host.
    """

    blueprint: str
    source: str
    parameters: dict[str, ParameterValue]
    shape: SlotShape
    batch: int
    dtype: str = "float32"
    device: str = "cpu"
    channels_last: bool = False
    input_requires_grad: bool = True

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidArgument(f"batch must be at least 1, got {self.batch}")
        if self.dtype not in DTYPES:
            raise InvalidArgument(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.device not in DEVICES:
            raise InvalidArgument(
                f"device must be one of {', '.join(DEVICES)}, got {self.device!r}"
            )

    def branch_class(self) -> type[CountableBranch]:
        """The class of the branch, imported.

        Raises:
            InvalidArgument: there is no such class.
        """
        module, _, name = self.source.partition(":")
        try:
            found: type[CountableBranch] = attrgetter(name)(importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            raise InvalidArgument(f"{self.source} cannot be imported: {error}") from error
        return found

    def build(self) -> CountableBranch:
        """A new branch, in dtype and device."""
        branch = self.branch_class()(self.shape, **self.parameters)
        return branch.to(device=self.device, dtype=DTYPES[self.dtype])

    def input(self, *, seed: int = 0) -> Tensor:
        """An input as the branch would get it, from a random generator of its own."""
        sizes = self.branch_class().reads(self.shape).sizes
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(self.batch, *sizes, generator=generator)
        x = x.to(device=self.device, dtype=DTYPES[self.dtype])
        if self.channels_last:
            x = x.to(memory_format=torch.channels_last)
        return x.requires_grad_(self.input_requires_grad)

    def __str__(self) -> str:
        named = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        more = [f"batch {self.batch}", self.dtype, self.device]
        more += ["channels last"] * self.channels_last
        more += ["input frozen"] * (not self.input_requires_grad)
        return f"{self.blueprint}({named}) {self.shape}, {', '.join(more)}"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What compiled code depends on, beside what was compiled.

    Attributes:
        torch: its build.
        python: version of Python.
        compiler: the first line of what the C++ compiler says of itself; empty without one.
        processor: instruction set that torch uses, and the digest of the flags of the processor.
        threads: of torch.
        accelerator: the GPU, its capability, CUDA and Triton; empty on a CPU.
        format: of artifacts.
    """

    torch: str
    python: str
    compiler: str
    processor: str
    threads: int
    accelerator: str
    format: int = FORMAT


def recipe_for(
    blueprint: Blueprint,
    shape: SlotShape,
    parameters: Mapping[str, ParameterValue] | None = None,
    *,
    batch: int,
    dtype: str = "float32",
    device: str = "cpu",
    channels_last: bool = False,
    input_requires_grad: bool = True,
) -> Recipe:
    """The recipe of a blueprint in a slot; parameters that are not given take their defaults.

    Raises:
        InvalidArgument: the blueprint does not fit or does not take the parameters, another process
            could not import its branch, or another value is not allowed.
    """
    blueprint.cost(shape, parameters or {})  # checks both
    branch = blueprint.branch
    kind = branch.reads(shape).kind
    made = Recipe(
        blueprint=blueprint.name,
        source=f"{branch.__module__}:{branch.__qualname__}",
        parameters=blueprint.resolve(parameters or {}),
        shape=shape,
        batch=batch,
        dtype=dtype,
        device=device,
        channels_last=channels_last and kind is FeatureKind.SPATIAL,
        input_requires_grad=input_requires_grad,
    )
    if branch.__module__ == "__main__" or made.branch_class() is not branch:
        raise InvalidArgument(
            f"{made.source} is not what another process would import by this name, so that it "
            f"cannot be compiled ahead; write it at the top of a module"
        )
    return made


def this_machine(device: str = "cpu") -> Machine:
    """The machine on which this process runs, with its present number of threads."""
    return Machine(
        torch=f"{torch.__version__} {torch.version.git_version}",
        python=platform.python_version(),
        compiler=_compiler(),
        processor=f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_flags()}",
        threads=torch.get_num_threads(),
        accelerator=_accelerator() if device == "cuda" else "",
    )


def key(asked: Recipe, machine: Machine) -> str:
    """What the outcome is kept under: equal only where the same code would be compiled.

    Raises:
        InvalidArgument: the source of the branch cannot be read.
    """
    digest = hashlib.sha256()
    branch: Any = asked.branch_class()
    for part in (encode(asked), encode(machine), source_digest(branch)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


@cache
def source_digest(branch: type[nn.Module]) -> bytes:
    """SHA-256 of the files in which a branch is written, its bases and what they use.

    As they were when this was first asked about the class: it stays what it is when they change.

    Raises:
        InvalidArgument: one of its classes was not written in a file.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted({inspect.getfile(sys.modules[name]) for name in _modules(branch)}):
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    except (KeyError, TypeError, OSError) as error:
        raise InvalidArgument(
            f"{branch.__module__}.{branch.__qualname__} has no source file, so that it cannot be "
            f"compiled ahead: {error}; write it in a module"
        ) from error
    return digest.digest()


def _modules(branch: type[nn.Module]) -> set[str]:
    """Modules of a branch and its bases, and those that functions and layers in them come from.

    They are followed within the packages of these classes; of another only the module counts that
    was imported from, and neither torch nor Python itself.
    """
    waiting = [kind.__module__ for kind in branch.__mro__]
    own = {_package(name) for name in waiting} - _FOREIGN
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or _package(name) in _FOREIGN:
            continue
        found.add(name)
        if _package(name) in own:
            waiting += _used_in(sys.modules[name])
    return found


def _used_in(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        name = ""
        if inspect.ismodule(value):
            name = value.__name__
        elif inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module)):
            name = value.__module__
        if getattr(sys.modules.get(name), "__file__", None):
            yield name


def _package(module: str) -> str:
    return module.partition(".")[0]


@cache
def _compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        return ""
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return told.stdout.partition("\n")[0]


@cache
def _flags() -> str:
    """Instruction sets beyond what torch tells: its own key knows of none."""
    told = Path("/proc/cpuinfo")
    if not told.is_file():
        return platform.processor()
    lines = told.read_text(encoding="utf-8").splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    ordered = " ".join(sorted(flags.partition(":")[2].split()))
    return hashlib.sha256(ordered.encode()).hexdigest()[:16]


def _accelerator() -> str:
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    try:
        triton = importlib.import_module("triton").__version__
    except ImportError:  # nothing will compile, which is then what is decided
        triton = "missing"
    return f"{name} sm_{major}{minor} CUDA {torch.version.cuda} Triton {triton}"

"""A slot: a host module with the branches that grew on it."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from msgspec.structs import replace
from torch import Tensor, nn

from esper_lightning.kasmina.branch import Branch, BuildBranch
from esper_lightning.kasmina.feature_maps import feature_map
from esper_lightning.kasmina.random_stream import RandomStream, undisturbed_random
from esper_lightning.kasmina.record import RECORD_VERSION, SlotRecord
from esper_lightning.kasmina.straight_through import straight_through
from esper_lightning.leyline import (
    Attachment,
    DecodeError,
    FeatureKind,
    ParameterValue,
    SeedStage,
    SlotShape,
    SlotUnsuitable,
    decode,
    encode,
)

SAMPLE_ROWS = 16
"""Rows of a batch that a slot keeps, once an epoch, to look at a seed's output."""

_RECORD_KEY = "_extra_state"
_TRAINS = (SeedStage.TRAINING, SeedStage.BLENDING, SeedStage.SHADOWING, SeedStage.PROBATIONARY)


class SeedSlot(nn.Module):
    """Wraps a host module; its output is the module's, plus its fossils', plus its live seed's.

    The wrapped module stays reachable as ``base_layer`` and its attributes are forwarded. It must
    take a tensor first and return one tensor.

    The slot's record (stage, clocks, topology) travels in the ``state_dict`` beside the weights,
    and loading a ``state_dict`` rebuilds the branches before their weights are loaded.

    Args:
        base_layer: the host module.
        path: where it is in the host.
        build: how to build a named branch.

    Attributes:
        trust_radius: see :func:`~esper_lightning.kasmina.straight_through.straight_through`.
    """

    alpha: Tensor

    def __init__(self, base_layer: nn.Module, *, path: str, build: BuildBranch) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.fossils = nn.ModuleList()
        self.seed: Branch | None = None
        self.register_buffer("alpha", torch.zeros((), device=self._place()[0]))
        self.path = path
        self.record = SlotRecord()
        self.random = RandomStream(0)
        self.sample: tuple[Tensor, Tensor] | None = None
        self.trust_radius = 0.2
        self._build = build
        self._listening = True
        self._watched: tuple[weakref.ref[Tensor], int] | None = None

    # -- forward ----------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's output with what has grown here added."""
        if self.seed is None and not self.fossils and not self._listening:
            return self.base_layer(*args, **kwargs)
        x = self._tensor(args[0] if args else next(iter(kwargs.values()), None), "takes")
        # The base may overwrite its input: what a parallel branch or the sample reads is set aside.
        overwritten = self.record.mutates_input and (self._listening or self._reads_input())
        kept = x.clone() if overwritten else x
        version = None if x.is_inference() else x._version
        h = self._tensor(self.base_layer(*args, **kwargs), "returns")
        for fossil in self.fossils:
            h = h + self._run(fossil, kept, h)
        if self._listening:
            self._listen(x, version, kept, h)
        return h if self.seed is None else self._with_seed(self.seed, kept, h)

    def _with_seed(self, seed: Branch, x: Tensor, h: Tensor) -> Tensor:
        """Add what the live seed may say in its stage."""
        stage = self.record.stage
        if stage is SeedStage.TRAINING:
            if not torch.is_grad_enabled() or self.record.paused:
                return h
            output = self._run_apart(seed, x, h)
            return straight_through(h, output, trust_radius=self.trust_radius)
        if stage is SeedStage.BLENDING:
            return h + self.alpha * self._run_apart(seed, x, h)
        if stage is SeedStage.SHADOWING:
            return h + self._run_apart(seed, x, h)
        if stage is SeedStage.PROBATIONARY:
            with self.random.use(h.device):
                return h + self._run(seed, x, h)
        if stage is SeedStage.CULLED:
            with torch.no_grad():
                output = self._run_apart(seed, x, h)
            return h + self.alpha * output
        return h

    def _run_apart(self, seed: Branch, x: Tensor, h: Tensor) -> Tensor:
        """The seed on copies: no gradient reaches the host, and nothing it writes does either."""
        with self.random.use(h.device):
            return self._run(seed, x.detach().clone(), h.detach().clone())

    def _run(self, branch: nn.Module, x: Tensor, h: Tensor) -> Tensor:
        """One branch at its attachment point, its output fitted to ``h``."""
        series = getattr(branch, "attachment", None) is Attachment.SERIES
        output: Tensor = branch(h if series else x)
        if output.ndim == 4 and output.shape[2:] != h.shape[2:]:
            output = F.adaptive_avg_pool2d(output, (h.shape[2], h.shape[3]))
        return output.to(h.dtype)

    def _tensor(self, value: object, verb: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise SlotUnsuitable(
                f"slot {self.path!r}: {type(self.base_layer).__name__} {verb} "
                f"{type(value).__name__}, a slot needs one tensor; choose a module inside or "
                f"around it (kasmina.possible_slots and list_slots=true list them)"
            )
        return value

    def _reads_input(self) -> bool:
        branches = [*self.fossils, *([] if self.seed is None else [self.seed])]
        return any(
            getattr(branch, "attachment", None) is Attachment.PARALLEL for branch in branches
        )

    # -- listening --------------------------------------------------------------------------------

    def listen(self) -> None:
        """Keep a few rows of the next forward pass, and learn shapes from it."""
        self._listening = True

    def settle(self) -> None:
        """After a step: see whether the host overwrote the slot's input later in the pass."""
        if self._watched is not None:
            tensor, version = self._watched[0](), self._watched[1]
            if tensor is not None and tensor._version != version:
                self.record.mutates_input = True
            self._watched = None

    def _listen(self, x: Tensor, version: int | None, kept: Tensor, h: Tensor) -> None:
        if version is not None:
            self.record.mutates_input |= x._version != version
            # Only a training step ends with settle(); a weak reference cannot be pickled.
            self._watched = (weakref.ref(x), x._version) if torch.is_grad_enabled() else None
        shape = SlotShape(
            input=feature_map(kept, what=f"slot {self.path!r} input"),
            output=feature_map(h, what=f"slot {self.path!r} output"),
        )
        if self.record.shape is None:
            self.record.shape = shape
        self.sample = (
            kept[:SAMPLE_ROWS].detach().clone(),
            h[:SAMPLE_ROWS].detach().clone(),
        )
        self._listening = False

    @torch.no_grad()
    def sample_output(self) -> tuple[Tensor, Tensor] | None:
        """The live seed's output on the sample, beside the slot's own there; None without either.

        Neither touches the seed's random stream nor its buffers: the seed runs in eval mode.
        """
        if self.seed is None or self.sample is None:
            return None
        # Under autocast feature maps may be narrower than the weights; here there is no autocast.
        x, h = (tensor.to(self._place()[1]) for tensor in self.sample)
        training = self.seed.training
        self.seed.eval()
        try:
            with undisturbed_random(h.device):
                return self._run(self.seed, x.clone(), h.clone()).detach(), h
        finally:
            self.seed.train(training)

    # -- topology ---------------------------------------------------------------------------------

    def construct(
        self, blueprint: str, parameters: Mapping[str, ParameterValue], *, rng_seed: int
    ) -> Branch:
        """Build a branch for this slot, on its device and in its dtype, from a stream of its own.

        Raises:
            UnknownBlueprint: no such blueprint.
            InvalidArgument: it does not fit here, or a parameter is out of range.
        """
        if self.record.shape is None:
            raise SlotUnsuitable(f"slot {self.path!r} has seen no forward pass yet")
        with RandomStream(rng_seed).use():
            branch = self._build(blueprint, parameters, self.record.shape)
        device, dtype = self._place()
        return branch.to(device=device, dtype=dtype).train(self.training)

    def branch_parameters(self) -> list[nn.Parameter]:
        """Parameters of fossils and live seed."""
        seed = [] if self.seed is None else list(self.seed.parameters())
        return [*self.fossils.parameters(), *seed]

    @property
    def trains(self) -> bool:
        """True while a live seed's parameters belong to the optimiser."""
        return self.seed is not None and self.record.stage in _TRAINS

    def set_alpha(self, value: float) -> None:
        """Set the weight of the live seed's output."""
        self.alpha.fill_(value)

    def _place(self) -> tuple[torch.device, torch.dtype]:
        for tensor in (*self.base_layer.parameters(), *self.base_layer.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
        return torch.device("cpu"), torch.get_default_dtype()

    # -- state ------------------------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """The record as JSON bytes in a uint8 tensor, which ``weights_only=True`` can load."""
        record = self.record
        if record.seed is not None:
            record = replace(record, seed=replace(record.seed, random_state=self.random.state()))
        return torch.frombuffer(bytearray(encode(record)), dtype=torch.uint8).clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Nothing is left to do: the record was read before the children were loaded."""

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        raw = state_dict.get(prefix + _RECORD_KEY)
        if isinstance(raw, Tensor):
            data = raw.cpu().numpy().tobytes()
            self.restore(decode(data, SlotRecord, what=f"record of slot {self.path!r}"))
        super()._load_from_state_dict(dict(state_dict), prefix, *args, **kwargs)

    def restore(self, record: SlotRecord) -> None:
        """Rebuild the branches that ``record`` names, with fresh weights.

        Raises:
            DecodeError: the record is of another version.
            UnknownBlueprint: a blueprint is no longer there.
        """
        if record.version != RECORD_VERSION:
            raise DecodeError(
                f"record of slot {self.path!r} has version {record.version}; "
                f"this release reads version {RECORD_VERSION}"
            )
        self.record = record
        self.fossils = nn.ModuleList(
            self.construct(fossil.blueprint, fossil.parameters, rng_seed=0)
            for fossil in record.fossils
        )
        self.seed = None
        if record.seed is not None:
            seed = record.seed
            self.seed = self.construct(seed.blueprint, seed.parameters, rng_seed=seed.rng_seed)
            self.seed.requires_grad_(record.stage is not SeedStage.CULLED and not record.paused)
            if seed.random_state:
                self.random.restore(seed.random_state)
        self._listening = True

    # -- being found ------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get("base_layer")
            if base is None:
                raise
            return getattr(base, name)

    def __getitem__(self, index: Any) -> Any:
        return self.base_layer[index]  # type: ignore[index]

    def extra_repr(self) -> str:
        """Stage, live seed and shape."""
        record = self.record
        parts = [record.stage.name]
        if record.seed is not None:
            parts.append(f"seed={record.seed.blueprint}, alpha={float(self.alpha):.2f}")
        if record.fossils:
            parts.append("fossils=" + "+".join(f.blueprint for f in record.fossils))
        if record.shape is not None:
            kind = FeatureKind(record.shape.output.kind)
            parts.append(f"{kind.value} {record.shape.output.sizes}")
        return ", ".join(parts)

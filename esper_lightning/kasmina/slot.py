"""A slot: a host module with the branches that grew on it."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from esper_lightning.kasmina.aliasing import passes_on, same_memory, version_of
from esper_lightning.kasmina.branch import Branch, BuildBranch, branch_output
from esper_lightning.kasmina.feature_maps import feature_map, first_argument
from esper_lightning.kasmina.random_stream import RandomStream
from esper_lightning.kasmina.record import TRAINED_STAGES, SeedRecord, SlotRecord, read_record
from esper_lightning.kasmina.stand_in import StandIn
from esper_lightning.kasmina.straight_through import straight_through
from esper_lightning.leyline import (
    Attachment,
    FeatureKind,
    GrownSeed,
    Incubation,
    ParameterValue,
    SeedStage,
    SlotShape,
    SlotUnsuitable,
    UnknownBlueprint,
    encode,
)

SAMPLE_ROWS = 16
"""Rows of a batch that a slot keeps, once an epoch, to look at a seed's output."""

MAX_SHADOW_RATIO = 10.0
"""Norm of a seed's output over the slot's above which it is left out of a shadow pass."""

_RECORD_KEY = "_extra_state"
_LISTED = "kasmina.possible_slots and list_slots=true list them"


class Pass(Enum):
    """What a forward pass is for, as far as a seed in isolation is concerned.

    ``MAIN`` trains the network; in ``SHADOW`` seeds that incubate in shadow add their output;
    in ``WITHOUT`` no isolated seed takes part.
    """

    MAIN = "main"
    SHADOW = "shadow"
    WITHOUT = "without"


class SeedSlot(StandIn):
    """Wraps a host module; its output is the module's, plus its fossils', plus its live seed's.

    The wrapped module stays reachable as ``base_layer``; what is read or written here and is not
    the slot's own is read and written there. It must take a tensor first and return one tensor. It
    may be called several times in a pass, what has grown here then acts in each call.

    The slot's record (stage, clocks, topology) travels in the ``state_dict`` beside the weights,
    and loading a ``state_dict`` rebuilds the branches before their weights are loaded.

    Args:
        base_layer: the host module.
        path: where it is in the host.
        build: how to build a named branch.

    Attributes:
        trust_radius: see :func:`~esper_lightning.kasmina.straight_through.straight_through`.
        syncs_batch_norm: whether batch statistics of what grows are those of all ranks, as the
            host's are.
        passing: what the pass that runs is for.
        listening: whether the next passes are to be looked at for shapes and a sample.
    """

    alpha: Tensor

    def __init__(self, base_layer: nn.Module, *, path: str, build: BuildBranch) -> None:
        super().__init__(base_layer)
        self.fossils = nn.ModuleList()
        self.seed: Branch | None = None
        self.register_buffer("alpha", torch.zeros((), device=self._place()[0]))
        self.path = path
        self.record = SlotRecord()
        self.random = RandomStream(0)
        self.sample: tuple[Tensor, Tensor] | None = None
        self.trust_radius = 0.2
        self.syncs_batch_norm = False
        self.passing = Pass.MAIN
        self.listening = True
        self._build = build
        self._heard = False
        self._in_steps = False
        self._examined = False
        self._watched: list[tuple[Tensor, int, bool]] = []
        self._stand()

    # -- forward ----------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's output with what has grown here added."""
        # Looked up directly: through nn.Module's attributes this would cost more than all the rest.
        inside: dict[str, Any] = self.__dict__["_modules"]
        if not self.listening and inside.get("seed") is None and not inside["fossils"]._modules:
            return inside["base_layer"](*args, **kwargs)
        x = self._tensor(first_argument(self.base_layer, args, kwargs), "takes")
        # The base may overwrite its input: what a parallel branch or the sample reads is set aside.
        overwritten = self.record.mutates_input and (self.listening or self.reads_input)
        kept = x.clone() if overwritten else x
        version = version_of(x)
        h = self._tensor(self.base_layer(*args, **kwargs), "returns")
        for fossil in self.fossils:
            h = h + branch_output(fossil, kept, h)
        if self.listening:
            self._listen(x, version, kept, h)
        return h if self.seed is None else self._with_seed(self.seed, kept, h)

    def _with_seed(self, seed: Branch, x: Tensor, h: Tensor) -> Tensor:
        """Add what the live seed may say in its stage."""
        stage = self.record.stage
        if stage is SeedStage.TRAINING:
            return self._incubate(seed, x, h) if self.takes_part else h
        if stage is SeedStage.BLENDING:
            return h + self.alpha * self._run_apart(seed, x, h)
        if stage is SeedStage.SHADOWING:
            return h + self._run_apart(seed, x, h)
        if stage is SeedStage.PROBATIONARY:
            with self.random.use(h.device):
                return h + branch_output(seed, x, h)
        if stage is SeedStage.CULLED:
            with torch.no_grad():
                output = self._run_apart(seed, x, h)
            return h + self.alpha * output
        return h

    def _incubate(self, seed: Branch, x: Tensor, h: Tensor) -> Tensor:
        """Let an isolated seed take part in a pass that trains."""
        if not torch.is_grad_enabled() or self.passing is Pass.WITHOUT:
            return h
        if not self.incubates_in_shadow:
            output = self._run_apart(seed, x, h)
            return straight_through(h, output, trust_radius=self.trust_radius)
        if self.passing is Pass.MAIN:
            return h
        output = self._run_apart(seed, x, h)
        size, expected = (torch.linalg.vector_norm(t.detach().float()) for t in (output, h))
        # NaN compares as false, so that what is not finite is left out too.
        return h + torch.where(size <= MAX_SHADOW_RATIO * expected, output, 0.0)

    def _run_apart(self, seed: Branch, x: Tensor, h: Tensor) -> Tensor:
        """The seed on copies: no gradient reaches the host, and nothing it writes does either."""
        with self.random.use(h.device):
            return branch_output(seed, x.detach().clone(), h.detach().clone())

    def _tensor(self, value: object, verb: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise SlotUnsuitable(
                f"slot {self.path!r}: {type(self.base_layer).__name__} {verb} "
                f"{type(value).__name__}, a slot needs one tensor; choose a module inside or "
                f"around it ({_LISTED})"
            )
        return value

    @property
    def reads_input(self) -> bool:
        """True while a branch here reads the input of the wrapped module."""
        branches = [*self.fossils, *([] if self.seed is None else [self.seed])]
        return any(
            getattr(branch, "attachment", None) is Attachment.PARALLEL for branch in branches
        )

    # -- listening --------------------------------------------------------------------------------

    def listen(self) -> None:
        """Keep a few rows of the next forward pass, and learn shapes from it.

        Training steps follow, each of which ends with :meth:`settle`.
        """
        self.listening, self._heard, self._in_steps = True, False, True

    def settle(self) -> None:
        """After a step: see whether the host overwrote the slot's input later in the pass.

        Raises:
            SlotUnsuitable: the module returned its input, and the host overwrote both by either.
        """
        overwritten = [aliased for seen, was, aliased in self._watched if seen._version != was]
        self.record.mutates_input |= bool(overwritten)
        self._watched = []
        self.listening &= not self._heard
        if any(overwritten):
            raise SlotUnsuitable(
                f"slot {self.path!r}: {type(self.base_layer).__name__} returns its own input, "
                f"overwritten or not, and the host writes to it afterwards: with a branch added, "
                f"the input would not be written to; construct it with inplace=False, or choose "
                f"{self._around()}"
            )

    def _around(self) -> str:
        outer = self.path.rpartition(".")[0]
        hint = f", such as {outer!r}" if outer else ""
        return f"the module before it or the block around it{hint} ({_LISTED})"

    def _listen(self, x: Tensor, version: int | None, kept: Tensor, h: Tensor) -> None:
        shape = SlotShape(
            input=feature_map(kept, what=f"slot {self.path!r} input"),
            output=feature_map(h, what=f"slot {self.path!r} output"),
        )
        if not self._examined and version is not None:
            self._examined = True
            if passes_on(self.base_layer, x, version, h):
                raise SlotUnsuitable(
                    f"slot {self.path!r}: {type(self.base_layer).__name__} returns its own input, "
                    f"or a view of it, and computes nothing that a branch could be added to: a "
                    f"host that works in place on the result would no longer change the input; "
                    f"choose {self._around()}"
                )
        if self.record.shape is None:
            self.record.shape = shape
        self._check_same_kind(shape)
        if not self._heard:
            self.sample = (
                kept[:SAMPLE_ROWS].detach().clone(),
                h[:SAMPLE_ROWS].detach().clone(),
            )
        self._heard = True
        if version is not None:
            self.record.mutates_input |= x._version != version
        if not self._in_steps or not torch.is_grad_enabled():
            self.listening = False
        elif version is not None:
            aliased = self.seed is None and same_memory(x, h)
            self._watched.append((x.detach(), x._version, aliased))  # the two share their version

    def _check_same_kind(self, shape: SlotShape) -> None:
        known = self.record.shape
        assert known is not None
        for was, now in ((known.input, shape.input), (known.output, shape.output)):
            if (was.kind, was.features) != (now.kind, now.features):
                raise SlotUnsuitable(
                    f"slot {self.path!r} carries {known}, and now {shape}: the module is called "
                    f"with feature maps of different kinds; choose a module inside it"
                )

    @torch.no_grad()
    def sample_output(
        self, branch: Branch | None, *, draw: int = 0
    ) -> tuple[Tensor, Tensor] | None:
        """A branch's output on the sample, beside the slot's own there; None without either.

        Touches neither the seed's random stream nor buffers: the branch runs in eval mode. What it
        draws nevertheless depends on ``draw``.
        """
        if branch is None or self.sample is None:
            return None
        # Under autocast feature maps may be narrower than the weights; here there is no autocast.
        x, h = (tensor.to(self._place()[1]) for tensor in self.sample)
        training = branch.training
        branch.eval()
        try:
            with RandomStream(draw).use(h.device):
                return branch_output(branch, x.clone(), h.clone()).detach(), h
        finally:
            branch.train(training)

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
        if self.syncs_batch_norm:
            branch = nn.SyncBatchNorm.convert_sync_batchnorm(branch)  # type: ignore[no-untyped-call]
        device, dtype = self._place()
        return branch.to(device=device, dtype=dtype).train(self.training)

    def branch_parameters(self) -> list[nn.Parameter]:
        """Parameters of fossils and live seed."""
        seed = [] if self.seed is None else list(self.seed.parameters())
        return [*self.fossils.parameters(), *seed]

    @property
    def trains(self) -> bool:
        """True while a live seed's parameters belong to the optimiser."""
        return self.seed is not None and self.record.stage in TRAINED_STAGES

    @property
    def takes_part(self) -> bool:
        """True while the live seed is neither paused nor in quarantine."""
        seed = self.record.seed
        return seed is not None and not self.record.paused and not seed.quarantined

    @property
    def incubates_in_shadow(self) -> bool:
        """True while the live seed trains on second passes."""
        seed = self.record.seed
        return (
            seed is not None
            and seed.incubation is Incubation.SHADOW
            and self.record.stage is SeedStage.TRAINING
            and self.takes_part
        )

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
            self.rebuild(raw)
        super()._load_from_state_dict(dict(state_dict), prefix, *args, **kwargs)

    def rebuild(self, state: Tensor) -> None:
        """:meth:`restore` what :meth:`get_extra_state` told."""
        data = state.cpu().numpy().tobytes()
        self.restore(read_record(data, slot=self.path))

    def restore(self, record: SlotRecord) -> None:
        """Be what ``record`` says, with weights that are still to be loaded.

        A branch that is there and is named again stays; the others are built.

        Raises:
            UnknownBlueprint: a blueprint is no longer there.
        """
        fossils = [*zip(self.record.fossils, self.fossils, strict=True)]
        seeds = [(self.record.seed, self.seed)]
        if record.shape != self.record.shape:
            fossils, seeds = [], []
        self.record = record
        self.fossils = nn.ModuleList(
            self._reconstruct(fossil, fossils[number : number + 1])
            for number, fossil in enumerate(record.fossils)
        )
        self.seed = None
        if record.seed is not None:
            seed = record.seed
            self.seed = self._reconstruct(seed, seeds)
            self.seed.requires_grad_(record.stage is not SeedStage.CULLED and self.takes_part)
            if seed.random_state:
                self.random.restore(seed.random_state)
        self.listening, self._heard = True, False

    def _reconstruct(
        self, grown: GrownSeed | SeedRecord, there: Sequence[tuple[Any, nn.Module | None]]
    ) -> Branch:
        """A branch for what has grown, the one that is there where it is the same."""
        for known, branch in there:
            same = known is not None and (known.blueprint, known.parameters) == (
                grown.blueprint,
                grown.parameters,
            )
            if same and isinstance(branch, Branch):
                return branch
        try:
            return self.construct(grown.blueprint, grown.parameters, rng_seed=0)
        except UnknownBlueprint as error:
            raise UnknownBlueprint(
                f"what has grown in slot {self.path!r} cannot be built any more: {error}; load it "
                f"with the release or the build function that it grew with: build=... of Kasmina, "
                f"restore, Tolaria.load_from_checkpoint"
            ) from error

    # -- being seen -------------------------------------------------------------------------------

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

"""The policy of a configuration, without a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.errors import HydraException

from esper_lightning.conf import parts
from esper_lightning.conf.instantiate import build
from esper_lightning.leyline import InvalidArgument
from esper_lightning.tamiyo import Policy, Remote


def policy_maker(overrides: Sequence[str]) -> Callable[[], Policy]:
    """What makes the policy that ``python train.py`` with these overrides would decide by.

    Args:
        overrides: as on its command line, such as ``tamiyo=periodic tamiyo.policy.period=4``.

    Raises:
        InvalidArgument: Hydra cannot compose them, or they ask for a controller elsewhere.
    """
    here = [f"paths.{name}={Path.cwd()}" for name in ("root_dir", "output_dir")]
    try:
        with initialize_config_module("esper_lightning.conf", version_base="1.3"):
            cfg: Any = compose("train", [*here, *overrides])
    except HydraException as error:
        raise InvalidArgument(f"{' '.join(overrides)}: {error}") from error
    parts.register_blueprints(cfg)

    def make() -> Policy:
        policy: Policy = build(cfg.tamiyo.policy, "tamiyo.policy")
        return policy

    if isinstance(make(), Remote):
        raise InvalidArgument("a controller that answers cannot itself ask one: tamiyo=remote")
    return make

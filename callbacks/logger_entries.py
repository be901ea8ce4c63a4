"""How each logger takes text, a table, a picture, and its end.

Lightning's loggers share metrics and hyper-parameters only. Packages are imported where they are
used: whoever has such a logger has its package.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Entries:
    """What one class of loggers takes; None where it does not.

    Attributes:
        text: ``(logger, key, text, step)``: some lines at a step.
        table: ``(logger, key, columns, rows)``: the run's table, once, at its end.
        picture: ``(logger, key, png, step)``.
        close: ``(logger, failed)``: nothing comes any more.
    """

    text: Callable[[Any, str, str, int], object] | None = None
    table: Callable[[Any, str, Sequence[str], Rows], object] | None = None
    picture: Callable[[Any, str, Path, int], object] | None = None
    close: Callable[[Any, bool], object] | None = None


def _tensorboard_picture(logger: Any, key: str, png: Path, step: int) -> None:
    from matplotlib.image import imread

    logger.experiment.add_image(key, imread(png)[..., :3], step, dataformats="HWC")


def _aim_text(logger: Any, key: str, text: str, step: int) -> None:
    from aim.sdk.objects.text import Text

    told = Text(text)  # type: ignore[no-untyped-call]
    logger.experiment.track(told, name=key, step=step)


def _aim_picture(logger: Any, key: str, png: Path, step: int) -> None:
    from aim.sdk.objects.image import Image

    logger.experiment.track(Image(str(png)), name=key, step=step)


def _mlflow_table(logger: Any, key: str, columns: Sequence[str], rows: Rows) -> None:
    lines = ["\t".join(map(str, row)) for row in (columns, *rows)]
    logger.experiment.log_text(logger.run_id, "\n".join(lines) + "\n", f"{key}.tsv")


LOGGERS = {
    "TensorBoardLogger": Entries(
        text=lambda logger, key, text, step: logger.experiment.add_text(key, text, step),
        picture=_tensorboard_picture,
    ),
    "WandbLogger": Entries(
        table=lambda logger, key, columns, rows: logger.log_table(
            key, list(columns), [list(row) for row in rows]
        ),
        picture=lambda logger, key, png, _step: logger.log_image(key, [str(png)]),
        close=lambda logger, failed: logger.experiment.finish(exit_code=int(failed)),
    ),
    "MLFlowLogger": Entries(
        table=_mlflow_table,
        picture=lambda logger, key, png, _step: logger.experiment.log_artifact(
            logger.run_id, str(png), key
        ),
    ),
    "CometLogger": Entries(
        text=lambda logger, key, text, step: logger.experiment.log_text(
            text, step=step, metadata={"key": key}
        ),
        picture=lambda logger, key, png, step: logger.experiment.log_image(
            str(png), name=key, step=step
        ),
        close=lambda logger, _failed: logger.experiment.end(),
    ),
    "NeptuneLogger": Entries(
        text=lambda logger, key, text, step: logger.experiment[key].append(text, step=step),
        picture=lambda logger, key, png, _step: logger.experiment[key].upload(str(png)),
        close=lambda logger, _failed: logger.experiment.stop(),
    ),
    "AimLogger": Entries(
        text=_aim_text, picture=_aim_picture, close=lambda logger, _failed: logger.finalize("")
    ),
}
"""By class name. A subclass takes what its parent takes; any other logger takes nothing."""


def entries_of(logger: Logger) -> Entries:
    """What a logger takes."""
    names = [kind.__name__ for kind in type(logger).__mro__]
    return next((LOGGERS[name] for name in names if name in LOGGERS), Entries())


def send(logger: Logger, what: str, entry: Callable[..., object] | None, *arguments: Any) -> None:
    """Hand something to a logger that takes it; a logger that fails is logged as a warning.

    A run is worth more than a picture of it.
    """
    if entry is None:
        return
    try:
        entry(logger, *arguments)
    # Anything: these are clients of other people's servers.
    except Exception as error:  # pylint: disable=broad-exception-caught
        log.warning(
            "%s did not take %s: %s: %s", type(logger).__name__, what, type(error).__name__, error
        )


def log_hyperparameters(loggers: Sequence[Logger], parameters: dict[str, Any]) -> None:
    """Hand the hyper-parameters of a run to every logger."""
    for logger in loggers:
        send(logger, "hyper-parameters", lambda log: log.log_hyperparams(parameters))


@contextmanager
def logging_to(loggers: Sequence[Logger]) -> Iterator[list[Logger]]:
    """End each logger's run at the end, so that another can begin in this process."""
    failed = True
    try:
        yield list(loggers)
        failed = False
    finally:
        for logger in loggers:
            send(logger, "its end", entries_of(logger).close, failed)

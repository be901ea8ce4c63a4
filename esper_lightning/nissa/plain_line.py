"""What a run says where there is no terminal to draw on: one line for each thing that happened."""

from esper_lightning.leyline import Event, StageChanged, SystemState
from esper_lightning.nissa.quantities import growth_factor, is_accuracy, metric_value

_MAX_METRICS = 6


def plain_line(event: Event) -> str | None:
    """One line for an epoch's end or a stage change, None for every other event.

    Epochs are counted from 1, as in ``epoch 3/24``; a stage change carries the number of the epoch
    at whose end it happened.
    """
    if isinstance(event, SystemState):
        return _epoch_line(event)
    if isinstance(event, StageChanged):
        when = f"epoch {event.epoch + 1}" if event.epoch >= 0 else "start"
        return " ".join(f"{when}: {event}".split())
    return None


def shown_metrics(state: SystemState) -> list[str]:
    """Names of the metrics worth a line: losses and accuracies, the others where there are none."""
    names = [name for name in state.metrics if "loss" in name.lower() or is_accuracy(name)]
    return sorted(names or state.metrics, key=lambda name: (name != state.objective.name, name))[
        :_MAX_METRICS
    ]


def metrics_text(state: SystemState) -> str:
    """Name and value of :func:`shown_metrics`, the objective first."""
    return "  ".join(f"{n} {metric_value(n, state.metrics[n])}" for n in shown_metrics(state))


def _epoch_line(state: SystemState) -> str:
    of = f"/{state.max_epochs}" if state.max_epochs is not None else ""
    parts = [f"epoch {state.epoch + 1}{of}:"]
    if state.objective.name not in state.metrics:
        name = state.objective.name
        parts.append(f"{name} {metric_value(name, state.objective.value)} ")
    if state.metrics:
        parts.append(f"{metrics_text(state)} ")
    parts.append(f"parameters {state.num_parameters:,}")
    if state.num_parameters != state.host_parameters:
        parts.append(f"({growth_factor(state.host_parameters, state.num_parameters)})")
    return " ".join(parts)

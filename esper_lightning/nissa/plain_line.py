"""What a run says where there is no terminal to draw on: one line for each thing that happened."""

from esper_lightning.leyline import Event, Intervention, StageChanged, SystemState
from esper_lightning.nissa.quantities import growth_factor, is_accuracy, metric_value

_MAX_METRICS = 6


def plain_line(event: Event) -> str | None:
    """One line for an epoch's end, a stage change or an intervention, None for every other event.

    Epochs are counted from 1, as in ``epoch 3/24``; a stage change carries the number of the epoch
    at whose end it happened.
    """
    if isinstance(event, SystemState):
        return _epoch_line(event)
    if isinstance(event, StageChanged | Intervention):
        when = f"epoch {event.epoch + 1}" if event.epoch >= 0 else "start"
        return " ".join(f"{when}: {event}".split())
    return None


def metrics_text(state: SystemState, *, objective: bool = True) -> str:
    """Names and values of the losses and accuracies (of everything where there are none).

    The objective comes first, unless it is left out; then what was validated; then the rest.
    """
    names = [name for name in state.metrics if "loss" in name.lower() or is_accuracy(name)]
    first = state.objective.name
    chosen = [name for name in names or state.metrics if objective or name != first]
    chosen.sort(key=lambda name: (name != first, not name.startswith("val"), name))
    return "  ".join(
        f"{name} {metric_value(name, state.metrics[name])}" for name in chosen[:_MAX_METRICS]
    )


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

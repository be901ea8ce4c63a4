"""Numbers as people read them: counts, factors, FLOPs, durations, metric values."""

import math

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def _scaled(value: float) -> tuple[str, str]:
    """Three significant digits and the SI prefix they stand before."""
    exponent = 0
    while float(f"{abs(value):.3g}") >= 1000 and exponent < len(_PREFIXES) - 1:
        value /= 1000
        exponent += 1
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text, _PREFIXES[exponent]


def short_count(count: int) -> str:
    """A count in at most five characters.

    >>> short_count(999), short_count(7730), short_count(12_345_678)
    ('999', '7.73k', '12.3M')
    """
    if abs(count) < 1000:
        return str(count)
    return "".join(_scaled(count))


def flops(value: float) -> str:
    """Floating-point operations with an SI prefix.

    >>> flops(1.234e12), flops(950)
    ('1.23 TFLOP', '950 FLOP')
    """
    text, prefix = _scaled(value)
    return f"{text} {prefix}FLOP"


def growth_factor(before: float, after: float) -> str:
    """How many times ``before`` fits into ``after``; empty when nothing was there before.

    >>> growth_factor(1702, 7730), growth_factor(0, 5)
    ('4.54x', '')
    """
    return f"{after / before:.3g}x" if before > 0 else ""


def duration(seconds: float) -> str:
    """A time span in hours, minutes and seconds.

    >>> duration(7.4), duration(75), duration(3725)
    ('7.4 s', '1:15', '1:02:05')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def is_accuracy(name: str) -> bool:
    """Whether a metric's name, as logged, says that it is an accuracy.

    >>> is_accuracy("val/acc"), is_accuracy("val_accuracy"), is_accuracy("val/loss")
    (True, True, False)
    """
    return "acc" in name.lower()


def metric_value(name: str, value: float | None) -> str:
    """A metric's value: an accuracy from 0 to 1 in percent, others with four digits.

    >>> metric_value("val/acc", 0.9412), metric_value("val/loss", 0.41237), metric_value("x", None)
    ('94.1 %', '0.4124', '-')
    """
    if value is None:
        return "-"
    if is_accuracy(name) and 0 <= value <= 1:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if math.isfinite(value) else str(value)

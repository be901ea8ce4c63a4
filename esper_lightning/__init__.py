"""Neural networks that grow while they train, on the stock Lightning ``Trainer``.

The top level stays import-light. Start from :mod:`esper_lightning.callbacks` (``Kasmina`` grafts,
``Tamiyo`` decides) or from ``python train.py``.
"""

__version__ = "0.1.0"

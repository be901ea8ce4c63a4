"""Tells everybody that somebody sent what the keys did not sign."""

import logging
from collections.abc import Callable

from esper_lightning.leyline import BusUnavailable, Raised, Severity, Signer
from esper_lightning.oona.admission import Refused
from esper_lightning.oona.routing import FIELD, envelope_of, sealed
from esper_lightning.oona.server import Connection
from esper_lightning.oona.settings import Role, Settings

log = logging.getLogger(__name__)

FORGED_MESSAGE = "oona_forged_message"
"""Name of the alert."""


def alarm(
    connection: Connection, settings: Settings, signer: Signer, *, source: str
) -> Callable[[Refused], None]:
    """What an ``Admission`` calls with each forged message: sends an alert.

    A bus that cannot be reached is logged and does not raise.

    Args:
        connection: to the bus.
        settings: streams.
        signer: signs the alert.
        source: who found it; also stands for the run in the alert.
    """

    def tell(refused: Refused) -> None:
        alert = Raised(
            run_id=source,
            name=FORGED_MESSAGE,
            severity=Severity.CRITICAL,
            text=f"{refused}; find out who else can write to {connection.address}",
        )
        data = sealed(envelope_of(alert, source=source), signer)
        try:
            connection.add(settings.streams[Role.EMERGENCY], {FIELD: data})
        except BusUnavailable as error:
            log.warning("an alert could not be sent: %s", error)

    return tell

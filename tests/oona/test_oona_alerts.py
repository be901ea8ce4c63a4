import logging

import pytest
from bus_helpers import Bus
from servers import started

from esper_lightning.leyline import Raised, Signer
from esper_lightning.oona import FIELD, FORGED_MESSAGE, Admission, Refused, Role, alarm


def test_a_forged_message_is_told_on_the_emergency_stream(
    signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    with started("memory") as server:
        bus = Bus(server.url, signer)
        connection = bus.connect()
        told = alarm(connection, bus.settings, signer, source="reader")
        admission = Admission(signer, on_forged=told)
        with pytest.raises(Refused):
            admission.admit(Role.NORMAL, b"noise")
        ((_, fields),) = connection.read(bus.settings.streams[Role.EMERGENCY], after="0")
        alert = admission.admit(Role.EMERGENCY, fields[FIELD]).message
        assert isinstance(alert, Raised)
        assert (alert.name, alert.run_id) == (FORGED_MESSAGE, "reader")
        server.kill()
        with pytest.raises(Refused), caplog.at_level(logging.WARNING):
            admission.admit(Role.NORMAL, b"noise")
        assert "an alert could not be sent" in caplog.text
        server.restart()
        bus.close()

"""A bus that is lost."""

from esper_lightning.callbacks import Oona
from esper_lightning.nissa.drills.policies import PLANTED, PlantsOnce
from esper_lightning.nissa.drills.scene import Drill, Scene
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.oona import FIELD, Admission, Role, Settings, connect
from esper_lightning.oona.embedded import hold


def _bus_loss(scene: Scene) -> None:
    place = scene.folder / "server"
    server = hold(place)
    url = f"unix://{server.socket}"
    oona = Oona(url=url, folder=str(scene.folder))
    is_back = False

    def at_epoch(epoch: int) -> None:
        nonlocal server, is_back
        published = oona.published
        assert published is not None
        if epoch == PLANTED:
            scene.fail("the server of the bus stops")
            server.release()
        elif epoch > PLANTED and published.waiting:
            scene.react("keep", f"{published.waiting} messages wait in the outbox")
            if scene.fired and not is_back:
                server, is_back = hold(place), True
        elif is_back and not published.memory:
            scene.react("deliver", "the server is back, and nothing waits any more")

    try:
        scene.fit(
            PlantsOnce("parallel_conv", {"expansion": 1.0}), at_epoch=at_epoch, callbacks=[oona]
        )
        _compare(scene, url)
    finally:
        server.release()


def _compare(scene: Scene, url: str) -> None:
    """Everything that the run told is on the bus, in its order."""
    with connect(url) as connection:
        admission = Admission(connection.signer())
        stream = Settings.from_environment(url).streams[Role.NORMAL]
        entries = connection.read(stream, after="0", count=100_000)
        found = [admission.admit(Role.NORMAL, fields.get(FIELD)).message for _, fields in entries]
    told = read_journal(scene.folder / JOURNAL_NAME)
    if found != told:
        scene.wrong(f"{len(told)} events happened, and {len(found)} are on the bus")


DRILLS = (
    Drill(
        name="bus_loss",
        text="the server of the bus stops; messages wait on disk, and are delivered later.",
        alerts=("oona_breaker_open",),
        reactions=("keep", "deliver"),
        play=_bus_loss,
    ),
)

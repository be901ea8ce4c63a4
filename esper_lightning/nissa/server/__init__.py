"""Mission control: runs, alerts and metrics over HTTP, and the dashboard.

Needs the extra ``server``. ``uvicorn esper_lightning.nissa.server:create_app --factory`` serves
it to this machine alone.
"""

from esper_lightning.nissa.server.app import create_app
from esper_lightning.nissa.server.serving import Serving
from esper_lightning.nissa.server.sources import Card, Listener, News, Source

__all__ = ["Card", "Listener", "News", "Serving", "Source", "create_app"]

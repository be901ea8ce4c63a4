"""Events in Elasticsearch, for many runs of many machines.

``elasticsearch`` is imported here; it comes with the extra ``elasticsearch`` of this package.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from elasticsearch import ApiError, BadRequestError, Elasticsearch, TransportError
from elasticsearch.helpers import streaming_bulk

from esper_lightning.leyline import EsperError, Event, encode
from esper_lightning.nissa.events.text import event_epoch, event_slot, event_text

INDEX = "esper-events"
"""The index, unless another one is told."""

MAPPINGS: dict[str, Any] = {
    "dynamic": "strict",
    "properties": {
        "@timestamp": {"type": "date"},
        "run_id": {"type": "keyword"},
        "type": {"type": "keyword"},
        "epoch": {"type": "integer"},
        "slot": {"type": "keyword"},
        "text": {"type": "text"},
        # Kept and given back; names of slots and metrics would make a field each.
        "record": {"type": "object", "enabled": False},
    },
}
"""Fields of the index."""


class ElasticsearchFailed(EsperError):
    """Elasticsearch did not take events."""


class ElasticsearchSink:
    """Sends events to an index. An event that is sent twice stands there once.

    Args:
        client: an address, such as ``http://localhost:9200``, or a client of its own settings.
        index: its name.
        batch: events in one request.
        clock: Unix seconds; records tell no time, so an event has that of its sending.
        backoff_s: seconds before a first retry of what a busy server refused; doubled each time.

    Raises:
        ElasticsearchFailed: the server cannot be reached, or refused to make the index.
    """

    def __init__(
        self,
        client: Elasticsearch | str,
        *,
        index: str = INDEX,
        batch: int = 500,
        clock: Callable[[], float] = time.time,
        backoff_s: float = 1.0,
    ) -> None:
        self._client = Elasticsearch(client) if isinstance(client, str) else client
        self.index = index
        self._batch = batch
        self._clock = clock
        self._backoff_s = backoff_s
        try:
            self._client.indices.create(index=index, mappings=MAPPINGS)
        except BadRequestError as error:
            if error.error != "resource_already_exists_exception":
                raise ElasticsearchFailed(f"index {index!r} was not made: {error}") from error
        except (ApiError, TransportError) as error:
            raise ElasticsearchFailed(f"index {index!r} was not made: {error}") from error

    def add(self, events: Iterable[Event]) -> int:
        """Send events; how many the server took.

        Raises:
            ElasticsearchFailed: the server cannot be reached, or refused some; the text names the
                first. The others were taken.
        """
        taken, refused = 0, list[str]()
        try:
            for is_taken, answer in streaming_bulk(
                self._client,
                self._actions(events),
                chunk_size=self._batch,
                max_retries=3,
                initial_backoff=self._backoff_s,
                raise_on_error=False,
            ):
                if is_taken:
                    taken += 1
                else:
                    refused.append(str(answer))
        except (ApiError, TransportError) as error:
            raise ElasticsearchFailed(f"events were not sent to {self.index!r}: {error}") from error
        if refused:
            raise ElasticsearchFailed(
                f"{len(refused)} of {taken + len(refused)} events were refused, the first with "
                f"{refused[0][:400]}"
            )
        return taken

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _actions(self, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
        for event in events:
            record = encode(event)
            yield {
                "_op_type": "index",
                "_index": self.index,
                "_id": hashlib.sha256(record).hexdigest(),
                "_source": {
                    "@timestamp": int(1e3 * self._clock()),
                    "run_id": event.run_id,
                    "type": str(type(event).__struct_config__.tag),
                    "epoch": event_epoch(event),
                    "slot": event_slot(event),
                    "text": event_text(event),
                    "record": msgspec.to_builtins(event),
                },
            }

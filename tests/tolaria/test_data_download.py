"""Downloads from a server of the test's own."""

import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from idx_files import SOURCES, write_idx_folder

from esper_lightning.leyline import EsperError
from esper_lightning.tolaria.data import DataMissing, DownloadFailed, IdxImages, idx_file
from esper_lightning.tolaria.data.download import download

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


NUM_TOGETHER = 8


class Files(SimpleHTTPRequestHandler):
    """Serves a folder.

    Below ``/short/`` a connection breaks off in the middle of the body; below ``/together/`` nobody
    gets anything before ``NUM_TOGETHER`` have asked.
    """

    everybody = threading.Barrier(NUM_TOGETHER, timeout=30)

    def log_message(self, format, *args):
        """Keep the output of the tests clean."""

    def do_GET(self):
        manner, _, name = self.path.lstrip("/").rpartition("/")
        path = Path(self.directory, name)
        if manner == "absent" or not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        if manner == "together":
            self.everybody.wait()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if manner == "short" else content)


@pytest.fixture
def served(tmp_path):
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def refused():
    """An address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


def files_below(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_a_file_is_fetched_whole_and_nothing_else_is_left(served, tmp_path):
    folder, url = served
    (folder / "some.gz").write_bytes(CONTENT)
    there = tmp_path / "a" / "b"
    path = download("some.gz", mirrors=[url], sha256=SHA256, folder=there)
    assert path == there / "some.gz"
    assert path.read_bytes() == CONTENT
    assert files_below(there) == ["some.gz"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_mirrors_are_tried_in_turn(served, refused, tmp_path):
    folder, url = served
    (folder / "some.gz").write_bytes(CONTENT)
    mirrors = [refused, url + "absent/", url + "short/", url]
    path = download("some.gz", mirrors=mirrors, sha256=SHA256, folder=tmp_path / "new")
    assert path.read_bytes() == CONTENT


def test_what_every_mirror_said_is_told_and_nothing_is_left(served, refused, tmp_path):
    folder, url = served
    (folder / "some.gz").write_bytes(CONTENT[::-1])
    mirrors = [refused, url + "absent/", url + "short/", url]
    there = tmp_path / "new"
    with pytest.raises(DownloadFailed) as error:
        download("some.gz", mirrors=mirrors, sha256=SHA256, folder=there)
    lines = str(error.value).splitlines()
    assert lines[0] == "some.gz could not be downloaded:"
    assert [line.split(": ")[0].strip() for line in lines[1:5]] == [m + "some.gz" for m in mirrors]
    assert "refused" in lines[1]
    assert "404" in lines[2]
    assert f"{len(CONTENT) // 2} bytes" in lines[3]
    assert f"expected {SHA256}" in lines[4]
    assert f"into {there} by hand" in lines[5]
    assert not there.exists()
    assert isinstance(error.value, EsperError)
    assert isinstance(error.value, OSError)


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(served, tmp_path):
    folder, url = served
    (folder / "some.gz").write_bytes(CONTENT)
    there = tmp_path / "new"
    (there / "some.gz").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        download("some.gz", mirrors=[url], sha256=SHA256, folder=there)
    assert list(there.iterdir()) == [there / "some.gz"]


def mirrored(folder: Path, *mirrors: str) -> type[IdxImages]:
    """MNIST as it lies in ``folder``, to be fetched from ``mirrors``."""
    source = SOURCES["mnist"]
    files = {
        field: idx_file(
            name=getattr(source, field).name,
            gz_sha256=hashlib.sha256(
                (folder / f"{getattr(source, field).name}.gz").read_bytes()
            ).hexdigest(),
            sha256="",
        )
        for field in ("train_images", "train_labels", "test_images", "test_labels")
    }
    return type("Mirrored", (IdxImages,), {"source": replace(source, mirrors=mirrors, **files)})


def names(folder: str = "mnist") -> list[str]:
    return sorted(f"{folder}/{file.name}.gz" for file in SOURCES["mnist"].files)


def test_a_data_set_is_fetched_when_it_is_first_needed_and_only_if_it_may(served, tmp_path):
    folder, url = served
    write_idx_folder(folder, "mnist", 30, 10, folder=".")
    module = mirrored(folder, url)
    there = tmp_path / "data"
    with pytest.raises(DataMissing, match="download=true"):
        module(data_dir=there, num_val=10).setup("fit")
    assert not there.exists()
    data = module(data_dir=there, num_val=10, download=True)
    assert data.example_input().shape == (8, 1, 28, 28)
    assert files_below(there) == names()


def test_only_what_is_missing_is_fetched(served, tmp_path):
    folder, url = served
    write_idx_folder(folder, "mnist", 30, 10, folder=".")
    module = mirrored(folder, url)
    data = module(data_dir=tmp_path / "data", num_val=10, download=True)
    data.prepare_data()
    kept = tmp_path / "data" / names()[0]
    lost = tmp_path / "data" / names()[1]
    before = kept.stat()
    lost.unlink()
    data.prepare_data()
    assert lost.exists()
    assert kept.stat().st_ino == before.st_ino
    assert kept.stat().st_mtime_ns == before.st_mtime_ns


def test_files_that_lie_elsewhere_are_not_fetched_again(served, refused, tmp_path):
    folder, _ = served
    write_idx_folder(folder, "mnist", 30, 10, folder="MNIST/raw")
    module = mirrored(folder / "MNIST/raw", refused)
    data = module(data_dir=folder, num_val=10, download=True)
    data.setup("fit")
    assert len(files_below(folder)) == 4


def test_an_interrupted_download_of_a_set_goes_on_with_the_next_attempt(served, tmp_path):
    folder, url = served
    write_idx_folder(folder, "mnist", 30, 10, folder=".")
    module = mirrored(folder, url)
    last = folder / "t10k-labels-idx1-ubyte.gz"
    content = last.read_bytes()
    last.unlink()
    data = module(data_dir=tmp_path / "data", num_val=10, download=True)
    with pytest.raises(DownloadFailed, match="t10k-labels"):
        data.prepare_data()
    assert files_below(tmp_path / "data") == [n for n in names() if "t10k-labels" not in n]
    last.write_bytes(content)
    data.setup("fit")
    assert files_below(tmp_path / "data") == names()


def test_a_file_may_be_fetched_several_times_at_once_and_is_never_seen_in_part(served, tmp_path):
    folder, url = served
    content = CONTENT * 100
    (folder / "some.gz").write_bytes(content)
    there = tmp_path / "new"
    sha256 = hashlib.sha256(content).hexdigest()

    def fetch(_):
        path = download("some.gz", mirrors=[url + "together/"], sha256=sha256, folder=there)
        return len(path.read_bytes())

    with ThreadPoolExecutor(NUM_TOGETHER) as pool:
        sizes = list(pool.map(fetch, range(NUM_TOGETHER * 5)))
    assert set(sizes) == {len(content)}
    assert files_below(there) == ["some.gz"]

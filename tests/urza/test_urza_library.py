"""What is stored is found and read as it was."""

import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument, Signer
from esper_lightning.urza import Library, Reference, default_root

PARTS = {"graph": b"\x00\x01" * 1000, "cache/ab/kernel.so": b"", "x": bytes(range(256))}


# Storing and reading


def test_what_was_stored_comes_back(library: Library) -> None:
    about = {"speed_up": 1.25, "shape": [1, 2], "host": {"cores": 2}, "note": "ü", "none": None}
    before = time.time()
    stored = library.put("compiled", "ab12", PARTS, about=about)
    assert stored.reference == Reference("compiled", "ab12", 1)
    assert (stored.kind, stored.name, stored.version) == ("compiled", "ab12", 1)
    found = library.get("compiled", "ab12")
    assert found is not None
    for artifact in (stored, found):
        assert {name: artifact.read(name) for name in artifact.parts} == PARTS
        assert artifact.about == about
        assert {n: p.size for n, p in artifact.parts.items()} == {
            n: len(b) for n, b in PARTS.items()
        }
        assert artifact.size == 2256
        assert before <= artifact.created <= time.time()
        assert artifact.parents == ()


def test_another_library_object_reads_the_same(library: Library, root: Path) -> None:
    library.put("compiled", "ab12", PARTS, about={"a": 1})
    with Library(str(root)) as again:
        artifact = again.get("compiled", "ab12")
        assert artifact is not None
        assert artifact.read("x") == PARTS["x"]
        assert artifact.about == {"a": 1}


def test_a_part_may_come_from_a_file(library: Library, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"0123456789abcdef" * 200_000)
    artifact = library.put("policy", "p", {"weights": source})
    source.unlink()
    assert artifact.read("weights") == b"0123456789abcdef" * 200_000


def test_a_file_that_is_not_there_is_not_stored(library: Library, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        library.put("policy", "p", {"a": b"1", "b": tmp_path / "nowhere"})
    assert library.get("policy", "p") is None
    assert library.find() == []


def test_an_artifact_may_have_no_parts(library: Library) -> None:
    library.put("compiled", "eager", {}, about={"choice": "eager"})
    artifact = library.get("compiled", "eager")
    assert artifact is not None
    assert dict(artifact.parts) == {}
    assert artifact.about == {"choice": "eager"}
    with pytest.raises(InvalidArgument, match="eager version 1 has no part 'a'; it has: none"):
        artifact.read("a")


def test_a_part_that_is_not_there_is_named_with_those_that_are(library: Library) -> None:
    artifact = library.put("policy", "p", {"a": b"1", "b": b"2"})
    with pytest.raises(InvalidArgument, match="policy p version 1 has no part 'c'; it has: a, b"):
        artifact.read("c")


def test_what_the_same_bytes_are_is_one_file(library: Library, root: Path) -> None:
    library.put("policy", "p", {"a": b"same", "b": b"same"})
    library.put("policy", "q", {"c": b"same"})
    files = [path for path in (root / "content").rglob("*") if path.is_file()]
    assert len(files) == 1
    assert files[0].read_bytes() == b"same"


def test_what_is_told_is_a_copy(library: Library) -> None:
    library.put("policy", "p", {}, about={"list": [1]})
    for _ in range(2):
        artifact = library.get("policy", "p")
        assert artifact is not None
        assert artifact.about == {"list": [1]}
        artifact.about["list"].append(2)
        with pytest.raises(TypeError):
            artifact.parts["new"] = None  # type: ignore[index]


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(about=st.dictionaries(st.text("abü\n", max_size=3), json, max_size=3), data=st.binary())
def test_any_json_and_any_bytes_come_back(
    library: Library, about: dict[str, Any], data: bytes
) -> None:
    stored = library.put("policy", "p", {"x": data}, about=about)
    library.close()
    artifact = library.get("policy", "p")
    assert artifact is not None
    assert artifact.version == stored.version
    assert artifact.about == about
    assert artifact.read("x") == data


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"a": float("nan")}, r"about\['a'\] must be finite or None, got nan"),
        ({"a": [1, {"b": float("inf")}]}, r"about\['a'\]\[1\]\['b'\] must be finite"),
        ({1: 2}, "about must have texts as keys, got 1"),
        ({"a": b"bytes"}, r"about\['a'\] must be JSON .* got b'bytes'"),
        ({"a": {1, 2}}, "must be JSON"),
        ({"a": 10**5000}, "cannot be written as JSON"),
        ({"a": nested(100_000)}, "cannot be written as JSON"),
        ({"a": "\ud800"}, "cannot be written as JSON"),
        ({"a": "x" * 600_000}, "bytes of JSON; at most 524288 are kept"),
        (5, "about must be"),
        ([1], "about must be"),
    ],
)
def test_what_would_not_come_back_from_json_is_refused(
    library: Library, about: Any, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        library.put("policy", "p", {"x": b"1"}, about=about)
    assert library.find() == []


@pytest.mark.parametrize(
    ("kind", "name", "parts", "message"),
    [
        ("", "n", {}, "kind must be a word"),
        ("Policy", "n", {}, "kind must be a word .* got 'Policy'"),
        ("a/b", "n", {}, "kind must be a word"),
        (5, "n", {}, "kind must be a word"),
        ("policy", "", {}, "name must be 1 to 255 characters"),
        ("policy", "n" * 256, {}, "name must be 1 to 255 characters"),
        ("policy", "a\nb", {}, "name must be"),
        ("policy", "\ud800", {}, "name must be"),
        ("policy", None, {}, "name must be .* got None"),
        ("policy", "n", {"": b""}, "a part's name must be a relative path"),
        ("policy", "n", {"../x": b""}, "a part's name must be a relative path"),
        ("policy", "n", {"/etc/passwd": b""}, "a part's name must be"),
        ("policy", "n", {"a//b": b""}, "a part's name must be"),
        ("policy", "n", {"a/./b": b""}, "a part's name must be"),
        ("policy", "n", {".hidden": b""}, "a part's name must be"),
        ("policy", "n", {"a\\b": b""}, "a part's name must be"),
        ("policy", "n", {"a\n": b""}, "a part's name must be"),
        ("policy", "n", {"x" * 256: b""}, "a part's name must be"),
        ("policy", "n", {"x": "text"}, "part 'x' must be bytes or a Path"),
    ],
)
def test_what_cannot_be_a_name_is_refused(
    library: Library, kind: Any, name: Any, parts: Any, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        library.put(kind, name, parts)
    assert library.find() == []


# Versions, tags, lineage


def test_every_storing_is_a_new_version(library: Library) -> None:
    for number in (1, 2, 3):
        assert library.put("policy", "p", {"x": b"%d" % number}).version == number
    assert library.put("policy", "q", {}).version == 1
    assert library.put("compiled", "p", {}).version == 1
    newest = library.get("policy", "p")
    assert newest is not None
    assert newest.read("x") == b"3"
    first = library.get("policy", "p", version=1)
    assert first is not None
    assert first.read("x") == b"1"
    assert library.get("policy", "p", version=4) is None
    assert library.get("policy", "r") is None


def test_a_tag_is_of_one_version_of_a_name(library: Library) -> None:
    first = library.put("policy", "p", {}, tags=["champion", "first"])
    second = library.put("policy", "p", {})
    other = library.put("policy", "q", {}, tags=["champion"])

    def champion(name: str) -> Reference | None:
        found = library.get("policy", name, tag="champion")
        return None if found is None else found.reference

    assert champion("p") == first.reference
    library.tag(second.reference, "champion")
    assert champion("p") == second.reference
    assert champion("q") == other.reference
    assert library.tags(first.reference) == ("first",)
    third = library.put("policy", "p", {}, tags=["champion"])
    assert champion("p") == third.reference
    assert library.untag("policy", "p", "champion")
    assert not library.untag("policy", "p", "champion")
    assert champion("p") is None
    assert champion("q") == other.reference


def test_what_cannot_be_tagged_is_refused(library: Library) -> None:
    library.put("policy", "p", {})
    with pytest.raises(InvalidArgument, match="policy p version 2 is not in this library"):
        library.tag(Reference("policy", "p", 2), "champion")
    with pytest.raises(InvalidArgument, match="tag must be 1 to 255 characters"):
        library.tag(Reference("policy", "p", 1), "")
    with pytest.raises(InvalidArgument, match="tags must be a list of names"):
        library.put("policy", "p", {}, tags="champion")
    with pytest.raises(InvalidArgument, match="give a version or a tag, got 1 and 'a'"):
        library.get("policy", "p", version=1, tag="a")
    with pytest.raises(InvalidArgument, match="version must be a whole number of at least 1"):
        library.get("policy", "p", version=0)


def test_lineage_is_kept(library: Library) -> None:
    compiled = library.put("compiled", "ab", {}).reference
    first = library.put("policy", "p", {}).reference
    second = library.put("policy", "p", {}, parents=[first, compiled, first])
    third = library.put("policy", "p", {}, parents=[second.reference]).reference
    fourth = library.put("policy", "q", {}, parents=[second.reference, first]).reference
    assert second.parents == (first, compiled)
    assert library.lineage(third) == [second.reference, compiled, first]
    assert library.lineage(first) == []
    assert library.children(first) == [second.reference, fourth]
    assert library.children(second.reference) == [third, fourth]
    found = library.get("policy", "p", version=2)
    assert found is not None
    assert found.parents == (first, compiled)


def test_a_parent_must_be_there(library: Library) -> None:
    with pytest.raises(InvalidArgument, match="the parent policy p version 7 is not in this"):
        library.put("policy", "q", {"x": b"1"}, parents=[Reference("policy", "p", 7)])
    with pytest.raises(InvalidArgument, match="parents must be References"):
        library.put("policy", "q", {}, parents=["p"])  # type: ignore[list-item]
    assert library.find() == []
    assert library.put("policy", "q", {}).version == 1


def test_a_list_says_what_is_there(library: Library) -> None:
    library.put("policy", "b", {"x": b"12", "y": b"345"}, tags=["t", "s"])
    library.put("policy", "a", {})
    library.put("policy", "a", {}, tags=["t"])
    library.put("compiled", "a*[c]", {})

    def names(*arguments: Any, **words: Any) -> list[str]:
        return [str(entry.reference) for entry in library.find(*arguments, **words)]

    everything = [
        "compiled a*[c] version 1",
        "policy a version 1",
        "policy a version 2",
        "policy b version 1",
    ]
    assert names() == everything
    assert names("policy") == everything[1:]
    assert names(pattern="a") == everything[1:3]
    assert names(pattern="a*") == everything[:3]
    assert names(pattern="?", tag="t") == everything[2:]
    assert names("nothing") == []
    entry = library.find(tag="s")[0]
    assert (entry.size, entry.tags, entry.damage) == (5, ("s", "t"), None)
    assert entry.created <= time.time()


# The object


def test_a_library_opens_again_when_it_is_pickled(library: Library) -> None:
    library.put("policy", "p", {"x": b"1"})
    again = pickle.loads(pickle.dumps(library))
    assert again.root == library.root
    assert again.get("policy", "p").read("x") == b"1"
    again.close()


def test_a_library_does_not_carry_a_key_of_its_own_away(root: Path, signer: Signer) -> None:
    with (
        Library(root, signer=signer) as library,
        pytest.raises(TypeError, match="not pickled, since its key"),
    ):
        pickle.dumps(library)


def test_a_library_can_be_used_after_it_was_closed(library: Library) -> None:
    library.put("policy", "p", {})
    library.close()
    library.close()
    assert library.get("policy", "p") is not None
    assert library.put("policy", "p", {}).version == 2


def test_closing_leaves_one_database_file(library: Library, root: Path) -> None:
    library.put("policy", "p", {"x": b"1"})
    library.close()
    assert {path.name for path in root.iterdir()} == {"library.sqlite", "content", "partial"}
    assert list((root / "partial").iterdir()) == []


@pytest.mark.parametrize("busy_s", [0, -1, float("nan"), "long"])
def test_a_wait_must_be_positive(root: Path, signer: Signer, busy_s: Any) -> None:
    with pytest.raises(InvalidArgument, match="busy_s must be"):
        Library(root, signer=signer, busy_s=busy_s)


def test_the_root_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ESPER_URZA_ROOT", raising=False)
    assert default_root() == tmp_path / ".cache/esper_lightning/urza"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert default_root() == tmp_path / "c/esper_lightning/urza"
    monkeypatch.setenv("ESPER_URZA_ROOT", "~/lib")
    assert default_root() == tmp_path / "lib"

"""Publication: only what passed, always a higher version; and the way back."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from judging import WORTH, measured, stored, verdict

from esper_lightning.leyline import InvalidArgument, PolicyUpdate, Signer
from esper_lightning.simic.validation import (
    Check,
    NotPublished,
    Verdict,
    current,
    publish,
    withdraw,
)
from esper_lightning.simic.validation.digests import weights_digest
from esper_lightning.simic.validation.publication import TAG, VERDICT
from esper_lightning.tamiyo.learned import Learned, StoredPolicy
from esper_lightning.tamiyo.reload import from_library, learned_policy
from esper_lightning.tamiyo.reload.library import KIND, PART, WITHDRAWN, why_withdrawn
from esper_lightning.urza import Library, Retention

PACKAGE = StoredPolicy.load()


class Shop:
    """A library and what was announced."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.announced: list[PolicyUpdate] = []

    def publish(self, policy: StoredPolicy, told: Verdict | None = None) -> PolicyUpdate:
        """With a verdict beside what is current."""
        before = self.current()
        return publish(
            policy,
            told or verdict(policy, before),
            library=self.library,
            announce=self.announced.append,
        )

    def withdraw(self, number: int, reason: str = "it diverges") -> PolicyUpdate | None:
        return withdraw(
            "learned", number, reason=reason, library=self.library, announce=self.announced.append
        )

    def current(self) -> StoredPolicy:
        found = current(self.library, "learned")
        assert found is not None
        return found.stored

    def loaded(self, update: PolicyUpdate) -> StoredPolicy:
        """As a run loads it."""
        policy = from_library(self.library, Learned.from_bytes)(update)
        assert isinstance(policy, Learned)
        return StoredPolicy.from_bytes(policy.to_bytes())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Library(tmp_path / "library", signer=Signer(b"the key of these tests")) as library:
        yield Shop(library)


def same(one: StoredPolicy, other: StoredPolicy) -> bool:
    return weights_digest(one.network) == weights_digest(other.network)


def test_what_passed_is_stored_with_its_verdict_and_announced(shop: Shop) -> None:
    assert same(shop.current(), PACKAGE)
    told = verdict(stored(1), PACKAGE)
    update = shop.publish(stored(1), told)
    assert shop.announced == [update]
    assert (update.name, update.reference) == ("learned", "learned@1")
    assert update.version == PACKAGE.card.version + 1
    assert update.reason == told.reasons[0]
    artifact = shop.library.get(KIND, "learned", tag=TAG)
    assert artifact is not None
    assert Verdict.from_bytes(artifact.read(VERDICT)) == told
    made = shop.loaded(update)
    assert same(made, stored(1))
    assert made.card.version == update.version
    assert made.card.provenance["weights"] == 1
    assert made.card.provenance["validated"]["pairs"] == 32
    assert same(shop.current(), stored(1))


def test_versions_only_rise(shop: Shop) -> None:
    versions = [shop.publish(stored(n, version=v)).version for n, v in ((1, 1), (2, 40), (3, 7))]
    assert versions == [PACKAGE.card.version + 1, 40, 41]
    back = shop.withdraw(3)
    assert back is not None
    assert back.version == 42
    assert shop.publish(stored(4)).version == 43


def test_what_did_not_pass_is_not_published(shop: Shop) -> None:
    worse = verdict(stored(1), PACKAGE, found=measured(WORTH | {"candidate": 0.1}))
    changed = msgspec.structs.replace(worse, passed=True)
    broken = verdict(stored(1), PACKAGE, checks=(Check(name="legality", num=9, failures=2),))
    for told, why in [
        (worse, "did not pass: it is not better than current"),
        (changed, "did not pass: it is not better than current"),
        (broken, "did not pass: legality failed 2 of 9"),
        (verdict(stored(2), PACKAGE), "validate this policy"),
        (verdict(stored(1, name="other"), PACKAGE), "validate this policy"),
        (verdict(stored(1), stored(3)), "has taken its place since"),
    ]:
        with pytest.raises(NotPublished, match=why):
            shop.publish(stored(1), told)
    assert shop.announced == []
    assert shop.library.find() == []


def test_a_verdict_beside_one_that_was_replaced_since_is_out_of_date(shop: Shop) -> None:
    early = verdict(stored(2), PACKAGE)
    shop.publish(stored(1))
    with pytest.raises(NotPublished, match="learned@1 has taken its place since"):
        shop.publish(stored(2), early)


def test_a_publication_that_was_interrupted_can_be_repeated(shop: Shop) -> None:
    def fails(_: PolicyUpdate) -> None:
        raise ConnectionError

    told = verdict(stored(1), PACKAGE)
    with pytest.raises(ConnectionError):
        publish(stored(1), told, library=shop.library, announce=fails)
    update = shop.publish(stored(1), told)
    assert update.reference == "learned@1"
    assert len(shop.library.find(KIND)) == 1
    assert same(shop.loaded(update), stored(1))


def test_a_verdict_is_on_weights_whatever_their_version(shop: Shop) -> None:
    update = shop.publish(stored(1, version=90), verdict(stored(1, version=2), PACKAGE))
    assert update.version == 90


def test_withdrawal_brings_the_last_good_one_back_under_a_new_version(shop: Shop) -> None:
    first, second = shop.publish(stored(1)), shop.publish(stored(2))
    back = shop.withdraw(2, "it culls what pays")
    assert back is not None
    assert shop.announced == [first, second, back]
    assert (back.version, back.reference) == (second.version + 1, "learned@3")
    assert "learned@2, which was withdrawn: it culls what pays" in back.reason
    made = shop.loaded(back)
    assert same(made, stored(1))
    assert made.card.version == back.version
    assert made.card.provenance["restored"] == {
        "of": "learned@1",
        "version": first.version,
        "instead_of": "learned@2",
        "reason": "it culls what pays",
    }
    assert why_withdrawn(shop.library, "learned", 2) == "it culls what pays"
    assert why_withdrawn(shop.library, "learned", 1) == ""
    artifact = shop.library.get(KIND, "learned", tag=TAG)
    assert artifact is not None
    assert artifact.version == 3
    assert VERDICT in artifact.parts
    with pytest.raises(NotPublished, match="was withdrawn: it culls what pays"):
        shop.publish(stored(2))


def test_withdrawing_one_after_the_other_ends_at_the_package(shop: Shop) -> None:
    shop.publish(stored(1))
    shop.publish(stored(2))
    shop.withdraw(2)
    back = shop.withdraw(3, "the same as learned@1")
    assert back is not None
    assert same(shop.loaded(back), PACKAGE)
    assert same(shop.current(), PACKAGE)


def test_where_nothing_good_is_left_that_is_said(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    other = stored(1, name="other")
    publish(other, verdict(other, stored(0, name="other")), library=shop.library, announce=print)
    told: list[PolicyUpdate] = []
    assert withdraw("other", 1, reason="bad", library=shop.library, announce=told.append) is None
    assert told == []
    assert why_withdrawn(shop.library, "other", 1) == "bad"
    assert "no good policy 'other'" in caplog.text
    assert current(shop.library, "other") is None


def test_an_old_one_is_marked_and_the_good_one_announced_once_more(shop: Shop) -> None:
    shop.publish(stored(1))
    second = shop.publish(stored(2))
    assert shop.withdraw(1) == second
    assert len(shop.library.find(KIND)) == 2
    assert same(shop.current(), stored(2))


def test_a_withdrawal_that_was_interrupted_can_be_repeated(shop: Shop) -> None:
    shop.publish(stored(1))
    shop.publish(stored(2))

    def fails(_: PolicyUpdate) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        withdraw("learned", 2, reason="bad", library=shop.library, announce=fails)
    back = shop.withdraw(2, "bad, again")
    assert back is not None
    assert back.reference == "learned@3"
    assert len(shop.library.find(KIND)) == 3
    assert why_withdrawn(shop.library, "learned", 2) == "bad"


def test_what_was_withdrawn_and_what_to_go_back_to_outlive_garbage_collection(shop: Shop) -> None:
    for weights in (1, 2, 3):
        shop.publish(stored(weights))
    shop.withdraw(3)
    shop.library.collect_garbage(retention=Retention(keep_versions=1, max_bytes=0), grace_s=0)
    assert why_withdrawn(shop.library, "learned", 3)
    assert len(shop.library.find(WITHDRAWN)) == 1
    back = shop.withdraw(4)
    assert back is not None
    assert same(shop.loaded(back), stored(1))


def test_a_damaged_one_is_not_gone_back_to(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.publish(stored(1))
    second = shop.publish(stored(2))
    shop.publish(stored(3))
    path = shop.library.root / "content" / second.digest[:2] / second.digest
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    back = shop.withdraw(3)
    assert back is not None
    assert same(shop.loaded(back), stored(1))
    assert "is left out" in caplog.text


def test_what_others_stored_under_the_kind_is_no_policy_to_go_back_to(shop: Shop) -> None:
    shop.publish(stored(1))
    shop.library.put(KIND, "learned", {PART: b"no policy"}, about={"version": 50})
    assert same(shop.current(), stored(1))
    assert shop.publish(stored(2)).version == 51


@pytest.mark.parametrize(
    ("number", "reason", "why"),
    [(1, "", "needs a reason"), (9, "bad", "no policy learned@9"), (0, "bad", "version")],
)
def test_withdrawals_that_are_none(shop: Shop, number: int, reason: str, why: str) -> None:
    shop.publish(stored(1))
    with pytest.raises(InvalidArgument, match=why):
        shop.withdraw(number, reason)


def test_by_name_a_run_is_refused_what_was_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")
    with Library(tmp_path) as library:
        shop = Shop(library)
        shop.publish(stored(1))
        shop.publish(stored(2))
        assert learned_policy(policy="learned@2", library=tmp_path).name == "learned"
        shop.withdraw(2, "it culls what pays")
    with pytest.raises(InvalidArgument, match="learned@2 was withdrawn: it culls what pays"):
        learned_policy(policy="learned@2", library=tmp_path)
    assert learned_policy(policy="learned@3", library=tmp_path).name == "learned"

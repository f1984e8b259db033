from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.clock import NS_PER_S, Clock
from rpc_shim.access.digest import Proof
from rpc_shim.access.nonces import LIFETIME_US, Nonces


def proof(nonce: int | None, *, cnonce: str = "1", count: str = "1", user: str = "alice") -> Proof:
    return Proof(user, "RPC", str(nonce), nonce, cnonce, count, "00", "MD5")


def started_at(seconds: float) -> tuple[Clock, Nonces]:
    clock = Clock()
    clock.advance_to(int(seconds * NS_PER_S))
    return clock, Nonces(clock)


@pytest.mark.parametrize("seconds", [0, 1.5, 100_000])
def test_a_nonce_is_good_at_once_and_for_an_hour(seconds: float) -> None:
    clock, nonces = started_at(seconds)
    nonce = nonces.issue()
    assert nonces.is_fresh(proof(nonce))
    clock.advance_to((nonce + LIFETIME_US - 1) * 1000)
    assert nonces.is_fresh(proof(nonce))
    clock.advance_to((nonce + LIFETIME_US) * 1000)
    assert not nonces.is_fresh(proof(nonce))


def test_nonces_from_the_future_and_no_numbers_are_not_good() -> None:
    clock, nonces = started_at(10)
    clock.advance_to(20 * NS_PER_S)
    assert nonces.is_fresh(proof(20_000_000))
    assert not nonces.is_fresh(proof(20_000_001))
    assert not nonces.is_fresh(proof(None))
    with pytest.raises(ValueError, match="never fresh"):
        nonces.mark_used(proof(None))


def test_nonces_end_with_the_boot_of_the_application() -> None:
    clock, before = started_at(10)
    clock.advance_to(11 * NS_PER_S)
    nonce = before.issue()
    after = Nonces(clock)
    assert before.is_fresh(proof(nonce))
    for seconds in (11, 12, 3000):
        clock.advance_to(seconds * NS_PER_S)
        assert not after.is_fresh(proof(nonce))
        assert after.is_fresh(proof(after.issue()))


def test_a_proof_is_good_once() -> None:
    clock, nonces = started_at(10)
    used = proof(nonces.issue())
    nonces.mark_used(used)
    clock.advance_to(11 * NS_PER_S)
    assert not nonces.is_fresh(used)
    assert not nonces.is_fresh(replace(used, nonce_count="00000001"))
    assert nonces.is_fresh(replace(used, nonce_count="00000002"))
    assert nonces.is_fresh(replace(used, cnonce="2"))
    assert nonces.is_fresh(replace(used, username="bob"))


STEPS = st.lists(
    st.tuples(st.sampled_from(["wait", "issue", "use", "reuse"]), st.integers(0, 40)), max_size=60
)


@given(STEPS, st.integers(1, 4))
def test_whatever_happens_nothing_is_good_twice_or_too_late(
    steps: list[tuple[str, int]], capacity: int
) -> None:
    clock = Clock()
    nonces = Nonces(clock, capacity)
    issued: list[int] = []
    used: list[Proof] = []
    for kind, number in steps:
        if kind == "wait":
            clock.advance_to(clock.now_ns + number * 100 * NS_PER_S)
        elif kind == "issue":
            issued.append(nonces.issue())
            assert nonces.is_fresh(proof(issued[-1], cnonce="new"))
        elif kind == "use" and issued:
            candidate = proof(issued[number % len(issued)], cnonce=str(len(used)))
            if nonces.is_fresh(candidate):
                assert clock.now_ns // 1000 - int(candidate.nonce) < LIFETIME_US
                nonces.mark_used(candidate)
                used.append(candidate)
        assert not any(nonces.is_fresh(old) for old in used)
        assert len(nonces._used) == len(nonces._by_age) <= capacity

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.clock import NS_PER_S, Clock
from rpc_shim.access.digest import Proof
from rpc_shim.access.nonces import LIFETIME_NS, Nonces


def proof(nonce: int | None, *, cnonce: str = "1", count: str = "1", user: str = "alice") -> Proof:
    return Proof(user, "RPC", str(nonce), nonce, cnonce, count, "00", "MD5")


def started_at(seconds: float, seed: int = 0) -> tuple[Clock, Nonces]:
    clock = Clock()
    clock.advance_to(int(seconds * NS_PER_S))
    return clock, Nonces(clock, seed)


@pytest.mark.parametrize("seconds", [0, 1.5, 100_000])
def test_a_nonce_is_good_at_once_and_for_an_hour(seconds: float) -> None:
    clock, nonces = started_at(seconds)
    nonce = nonces.issue()
    assert nonces.use(proof(nonce, cnonce="1"))
    clock.advance_to(clock.now_ns + LIFETIME_NS - 1)
    assert nonces.use(proof(nonce, cnonce="2"))
    clock.advance_to(clock.now_ns + 1)
    assert not nonces.use(proof(nonce, cnonce="3"))


def test_only_numbers_that_have_been_issued_are_good() -> None:
    clock, nonces = started_at(10)
    nonce = nonces.issue()
    clock.advance_to(20 * NS_PER_S)
    for other in (nonce - 1, nonce + 1, 0, 15_000_000, 20_000_000, None):
        assert not nonces.use(proof(other))
    assert nonces.use(proof(nonce))


def test_nonces_end_with_the_boot_of_the_application() -> None:
    clock, before = started_at(10)
    nonce = before.issue()
    clock.advance_to(11 * NS_PER_S)
    after = Nonces(clock)
    for seconds in (11, 12, 3000):
        clock.advance_to(seconds * NS_PER_S)
        assert after.use(proof(after.issue()))
        assert not after.use(proof(nonce))
    assert before.use(proof(nonce))


def test_another_process_issues_other_nonces_at_the_same_times() -> None:
    """Virtual time starts anew there, and a recorded proof is still in somebody's hands."""
    _, first = started_at(10, seed=1)
    _, second = started_at(10, seed=2)
    recorded = {first.issue() for _ in range(100)}
    assert not recorded & {second.issue() for _ in range(100)}
    assert not any(second.use(proof(nonce)) for nonce in recorded)
    _, repeated = started_at(10, seed=1)
    assert recorded == {repeated.issue() for _ in range(100)}


def test_a_nonce_is_a_number_that_every_client_can_hold() -> None:
    _, nonces = started_at(0)
    issued = [nonces.issue() for _ in range(1000)]
    assert len(set(issued)) == 1000
    assert all(0 <= nonce == int(float(nonce)) < 2**53 for nonce in issued)


def test_a_proof_is_good_once() -> None:
    clock, nonces = started_at(10)
    used = proof(nonces.issue())
    assert nonces.use(used)
    clock.advance_to(11 * NS_PER_S)
    assert not nonces.use(used)
    assert not nonces.use(replace(used, nonce_count="00000001"))
    assert nonces.use(replace(used, nonce_count="00000002"))
    assert nonces.use(replace(used, cnonce="2"))
    assert nonces.use(replace(used, username="bob"))


def test_a_flood_ends_the_oldest_nonces_only() -> None:
    clock, _ = started_at(10)
    nonces = Nonces(clock, capacity=8)
    first, *_, last = [nonces.issue() for _ in range(9)]
    assert not nonces.use(proof(first))
    assert nonces.use(proof(last))


STEPS = st.lists(
    st.tuples(st.sampled_from(["wait", "issue", "use", "reuse"]), st.integers(0, 40)), max_size=60
)


@given(STEPS, st.integers(1, 4))
def test_whatever_happens_nothing_is_good_twice_or_too_late(
    steps: list[tuple[str, int]], capacity: int
) -> None:
    clock = Clock()
    nonces = Nonces(clock, capacity=capacity)
    issued: list[tuple[int, int]] = []
    used: list[Proof] = []
    for kind, number in steps:
        if kind == "wait":
            clock.advance_to(clock.now_ns + number * 100 * NS_PER_S)
        elif kind == "issue":
            issued.append((nonces.issue(), clock.now_ns))
            assert issued[-1][0] in nonces._issued
        elif kind == "use" and issued:
            nonce, at_ns = issued[number % len(issued)]
            candidate = proof(nonce, cnonce=str(len(used)))
            if nonces.use(candidate):
                assert clock.now_ns - at_ns < LIFETIME_NS
                used.append(candidate)
        elif used:
            assert not nonces.use(used[number % len(used)])
        remembered = [1 + len(one.uses) for one in nonces._issued.values()]
        assert sum(remembered) == nonces._remembered <= capacity

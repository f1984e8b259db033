"""Nonces: which challenges of the device are still good, and which proofs have been used.

A nonce is the device's time, as on the original, but in virtual microseconds, so that one from
before the last reset is told from one after it. It is good for an hour. A proof is good once: who
listens on the line cannot make the same call again.
"""

import heapq

from platforms.clock import NS_PER_S, NS_PER_US, Clock
from rpc_shim.access.digest import Proof

LIFETIME_US = 3600 * NS_PER_S // NS_PER_US
DEFAULT_CAPACITY = 4096

_Use = tuple[int, str, str, int]
"""Nonce, user, cnonce, nonce count."""


class Nonces:
    """The nonces of one boot of the application.

    Args:
        clock: virtual time.
        capacity: how many proofs are remembered. When there are more, the oldest nonce and all
            before it end early: clients have to take a new one.
    """

    def __init__(self, clock: Clock, capacity: int = DEFAULT_CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._ended_us = self._clock_us
        self._used: set[_Use] = set()
        self._by_age: list[_Use] = []

    def issue(self) -> int:
        """A nonce that is good from now on."""
        return max(self._clock_us, self._ended_us + 1)

    def is_fresh(self, proof: Proof) -> bool:
        """Whether the nonce of `proof` is good, and the proof has not been used."""
        nonce = proof.nonce_value
        if nonce is None or not self._ended_us < nonce <= self.issue():
            return False
        return nonce > self._clock_us - LIFETIME_US and _use(nonce, proof) not in self._used

    def mark_used(self, proof: Proof) -> None:
        """Remember a proof that is right and fresh: it is fresh no more."""
        if proof.nonce_value is None:
            raise ValueError("a proof without a nonce is never fresh")
        use = _use(proof.nonce_value, proof)
        self._used.add(use)
        heapq.heappush(self._by_age, use)
        while len(self._used) > self._capacity or self._is_over(self._by_age[0]):
            oldest = heapq.heappop(self._by_age)
            self._used.discard(oldest)
            self._ended_us = max(self._ended_us, oldest[0])

    def _is_over(self, use: _Use) -> bool:
        return use[0] <= self._clock_us - LIFETIME_US

    @property
    def _clock_us(self) -> int:
        return self._clock.now_ns // NS_PER_US


def _use(nonce: int, proof: Proof) -> _Use:
    # The count as a number: the same one written differently is the same use.
    return nonce, proof.username, proof.cnonce, int(proof.nonce_count, 16)

"""Nonces: which challenges of the device are still good, and which proofs have been used.

A nonce is good for an hour in the boot that has issued it, which remembers each: nobody can make
one up or bring one along from another boot. A proof is good once: who listens on the line cannot
make the same call again.

The original's nonce is the device's time. The virtual time of a board starts at 0 in each process
and takes the same course in each, so that here a nonce is a hash over a seed as well, which differs
between processes where that matters.
"""

import hashlib
from dataclasses import dataclass, field

from platforms.clock import NS_PER_S, Clock
from rpc_shim.access.digest import Proof

LIFETIME_NS = 3600 * NS_PER_S
DEFAULT_CAPACITY = 4096

_UNUSED_BITS = 64 - 53  # what is left is exact in clients whose only numbers are doubles

_Use = tuple[str, str, int]
"""User, cnonce, nonce count."""


@dataclass(slots=True)
class _Issued:
    """A nonce that is good, since when, and the proofs that have been made with it."""

    at_ns: int
    uses: set[_Use] = field(default_factory=set)


class Nonces:
    """The nonces of one boot of the application.

    Args:
        clock: virtual time.
        seed: differs between boards whose nonces must differ.
        capacity: how many nonces and proofs are remembered. When there are more, the oldest nonces
            end early: clients have to take new ones.
    """

    def __init__(self, clock: Clock, seed: int = 0, capacity: int = DEFAULT_CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._origin = f"{seed}:{clock.now_ns}"
        self._count = 0
        self._issued: dict[int, _Issued] = {}  # the oldest first
        self._remembered = 0

    def issue(self) -> int:
        """A nonce of up to 53 bits that is good from now on."""
        self._count += 1
        digest = hashlib.sha256(f"{self._origin}:{self._count}".encode()).digest()
        nonce = int.from_bytes(digest[:8]) >> _UNUSED_BITS
        if nonce not in self._issued:
            self._issued[nonce] = _Issued(self._clock.now_ns)
            self._remember_one_more()
        return nonce

    def use(self, proof: Proof) -> bool:
        """Whether `proof`, which is right, is also fresh: its nonce good, itself not used before.

        It is used now.
        """
        self._end_old()
        issued = None if proof.nonce_value is None else self._issued.get(proof.nonce_value)
        # The count as a number: the same one written differently is the same use.
        use = (proof.username, proof.cnonce, int(proof.nonce_count, 16))
        if issued is None or use in issued.uses:
            return False
        issued.uses.add(use)
        self._remember_one_more()
        return True

    def _remember_one_more(self) -> None:
        self._remembered += 1
        self._end_old()
        while self._remembered > self._capacity:
            self._end_oldest()

    def _end_old(self) -> None:
        while self._issued and self._clock.now_ns - self._oldest.at_ns >= LIFETIME_NS:
            self._end_oldest()

    def _end_oldest(self) -> None:
        nonce = next(iter(self._issued))
        self._remembered -= 1 + len(self._issued.pop(nonce).uses)

    @property
    def _oldest(self) -> _Issued:
        return next(iter(self._issued.values()))

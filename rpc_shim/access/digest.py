"""Digest authentication without state: the password file, what clients prove, what they are asked.

Over frames a client answers error 401 with an `auth` object, over HTTP with an `Authorization`
header; both prove with a hash that they know a password, without telling it. Facts are from
RFC 7616, mongoose-os-libs/rpc-common (`mg_rpc_check_digest_auth`) and `mos` (`MkDigestResp`).
Quality of protection is always `auth`.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Self

from platforms.errors import OtasimError
from rpc_shim.dispatch import HttpAuthorization
from rpc_shim.frame import FrameError, JsonValue, decode_json, describe

FRAME_METHOD = "dummy_method"
FRAME_URI = "dummy_uri"
FRAME_NONCE_COUNT = "1"
"""What a proof in a frame is made over, instead of an HTTP request: it covers no arguments."""

_QUALITY = "auth"
_MAX_LENGTH = 255
_DECIMAL = re.compile(r"[0-9]{1,20}", re.ASCII)
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)
_NONCE_COUNT = re.compile(r"[0-9a-fA-F]{1,8}", re.ASCII)
_HTTP_SCHEME = re.compile(r"digest[ \t]+", re.IGNORECASE)
_HTTP_PARAMETER = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*"""
    r"""(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))[ \t]*(?:,|$)""",
    re.DOTALL,
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


class MalformedAuthError(OtasimError):
    """Authentication data that a client sent cannot be read; says nothing about the password."""


class Algorithm(Enum):
    """The hash that passwords are kept and proven with; values are its name on the wire."""

    MD5 = "MD5"
    SHA_256 = "SHA-256"

    def hash(self, text: str) -> str:
        """The hash of `text` as lower-case hex digits."""
        name = "md5" if self is Algorithm.MD5 else "sha256"
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.new(name, data, usedforsecurity=False).hexdigest()

    @property
    def length(self) -> int:
        """How many hex digits a hash has."""
        return 32 if self is Algorithm.MD5 else 64


@dataclass(frozen=True, slots=True)
class Proof:
    """What a client sends to prove that it knows the password of a user.

    Attributes:
        username: who it says it is.
        realm: what the password is for.
        nonce: the device's challenge, as the client repeats it.
        nonce_value: the number that is, None when it cannot be one of ours.
        cnonce: the client's own salt.
        nonce_count: how often the client has used the nonce, as it writes it.
        response: the proof, hex digits.
        algorithm: the hash, as the client names it.
        method: HTTP method the proof is made over, or `FRAME_METHOD`.
        uri: request target the proof is made over, or `FRAME_URI`.
    """

    username: str
    realm: str
    nonce: str
    nonce_value: int | None
    cnonce: str
    nonce_count: str
    response: str
    algorithm: str
    method: str = FRAME_METHOD
    uri: str = FRAME_URI


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the device asks of a client that has not proven who it is.

    Attributes:
        realm: what the password is for.
        algorithm: the hash to use.
        nonce: a number that the client must repeat.
        stale: the last proof was right, but for a nonce that is not valid any more.
    """

    realm: str
    algorithm: Algorithm
    nonce: int
    stale: bool = False

    def as_message(self) -> str:
        """The message of error 401 as frames carry it: JSON, with the nonce as a number."""
        members: dict[str, JsonValue] = {
            "auth_type": "digest",
            "nonce": self.nonce,
            "nc": 1,
            "realm": self.realm,
            "algorithm": self.algorithm.value,
        }
        if self.stale:
            members["stale"] = True
        return json.dumps(members)

    def as_header(self) -> str:
        """The `WWW-Authenticate` header of HTTP status 401, with the nonce in hex digits.

        The order is the device's: `mos` takes a comma for part of an unquoted value, so the last
        one must be the only one that matters to it.
        """
        stale = "stale=true, " if self.stale else ""
        realm = re.sub(r'(["\\])', r"\\\1", self.realm)
        return (
            f'Digest qop="{_QUALITY}", realm="{realm}", nonce="{self.nonce:x}", '
            f"{stale}algorithm={self.algorithm.value}"
        )

    @classmethod
    def parse(cls, message: str) -> Self | None:
        """The challenge in the message of error 401; None when there is none that we can meet."""
        try:
            members = decode_json(message.encode("utf-8", "surrogatepass"))
        except FrameError:
            return None
        if not isinstance(members, dict) or members.get("auth_type") != "digest":
            return None
        nonce, realm = members.get("nonce"), members.get("realm")
        algorithm = members.get("algorithm", Algorithm.MD5.value)
        if isinstance(nonce, bool) or not isinstance(nonce, int) or not isinstance(realm, str):
            return None
        if not any(algorithm == known.value for known in Algorithm):
            return None
        if not realm.isprintable() or not realm.isascii():
            return None  # it could not stand in a header
        return cls(realm, Algorithm(algorithm), nonce, stale=members.get("stale") is True)


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A file of `user:realm:HA1` lines, as `htdigest` writes it.

    Attributes:
        hashes: HA1 by user, realm and number of its digits; the first line of several counts.
        problems: what is wrong with lines that are no such thing; those count for nobody.
    """

    hashes: Mapping[tuple[str, str, int], str]
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file; never fails, but what cannot be read lets nobody in."""
        hashes: dict[tuple[str, str, int], str] = {}
        problems = []
        lengths = {algorithm.length for algorithm in Algorithm}
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), start=1):
            if not (entry := line.strip()):
                continue
            user, realm, digits = [*entry.split(":"), "", ""][:3]
            if entry.count(":") != 2 or not user or len(digits) not in lengths or "\ufffd" in entry:
                problems.append(f"line {number} is not user:realm:hash")
            else:
                hashes.setdefault((user, realm, len(digits)), digits.lower())
        return cls(hashes, tuple(problems))


def password_hash(algorithm: Algorithm, user: str, realm: str, password: str) -> str:
    """HA1: what the password file holds."""
    return algorithm.hash(f"{user}:{realm}:{password}")


def response_for(algorithm: Algorithm, ha1: str, proof: Proof) -> str:
    """The response that proves knowledge of `ha1` for everything else that `proof` says."""
    ha2 = algorithm.hash(f"{proof.method}:{proof.uri}")
    return algorithm.hash(
        f"{ha1}:{proof.nonce}:{proof.nonce_count}:{proof.cnonce}:{_QUALITY}:{ha2}"
    )


def answer_in_frame(
    challenge: Challenge, user: str, password: str, cnonce: int
) -> dict[str, JsonValue]:
    """The `auth` object that answers `challenge`, as `mos` makes it.

    Args:
        challenge: what the device asks.
        user: who we say we are.
        password: what we prove to know.
        cnonce: a number that has not been used with this challenge.
    """
    algorithm = challenge.algorithm
    proof = Proof(
        username=user,
        realm=challenge.realm,
        nonce=str(challenge.nonce),
        nonce_value=challenge.nonce,
        cnonce=str(cnonce),
        nonce_count=FRAME_NONCE_COUNT,
        response="",
        algorithm=algorithm.value,
    )
    ha1 = password_hash(algorithm, user, challenge.realm, password)
    return {
        "realm": challenge.realm,
        "username": user,
        "nonce": challenge.nonce,
        "cnonce": cnonce,
        "algorithm": algorithm.value,
        "response": response_for(algorithm, ha1, proof),
    }


def is_proven(proof: Proof, passwords: PasswordFile, realm: str, algorithm: Algorithm) -> bool:
    """Whether `proof` is right for a user of `realm` in the file.

    Says nothing about the nonce. Takes as long for a user who is not there.
    """
    ha1 = passwords.hashes.get((proof.username, realm, algorithm.length))
    expected = response_for(algorithm, ha1 or "", proof)
    given = proof.response.lower().encode("utf-8", "surrogatepass")
    is_right = hmac.compare_digest(expected.encode(), given)
    return (
        is_right and ha1 is not None and proof.realm == realm and proof.algorithm == algorithm.value
    )


def parse_frame_auth(auth: Mapping[str, JsonValue]) -> Proof:
    """The proof in a request's `auth` object. Nonce and cnonce may be numbers or strings.

    Raises:
        MalformedAuthError: a field is missing or cannot be one; which one, in the message.
    """
    nonce = _frame_field(auth, "nonce")
    return Proof(
        username=_frame_field(auth, "username"),
        realm=_frame_field(auth, "realm"),
        nonce=nonce,
        nonce_value=int(nonce) if _DECIMAL.fullmatch(nonce) else None,
        cnonce=_frame_field(auth, "cnonce"),
        nonce_count=FRAME_NONCE_COUNT,
        response=_frame_field(auth, "response"),
        algorithm=_frame_field(auth, "algorithm") if "algorithm" in auth else Algorithm.MD5.value,
    )


def parse_authorization(authorization: HttpAuthorization) -> Proof | None:
    """The proof in an `Authorization` header; None when it is of another kind than `Digest`.

    Raises:
        MalformedAuthError: the header is no digest, or not for this request.
    """
    scheme = _HTTP_SCHEME.match(authorization.header)
    if scheme is None:
        return None
    fields = _http_fields(authorization.header[scheme.end() :].rstrip(" \t"))
    quality = _http_field(fields, "qop")
    if quality != _QUALITY:
        raise MalformedAuthError(f"qop must be {_QUALITY}, got {describe(quality)}")
    if fields.get("uri") != authorization.uri:
        raise MalformedAuthError(
            f"uri must be the request's, {describe(authorization.uri)}, "
            f"got {describe(fields.get('uri'))}"
        )
    nonce, nonce_count = _http_field(fields, "nonce"), _http_field(fields, "nc")
    if not _NONCE_COUNT.fullmatch(nonce_count):
        raise MalformedAuthError(f"nc must be hex digits, got {describe(nonce_count)}")
    return Proof(
        username=_http_field(fields, "username"),
        realm=_http_field(fields, "realm"),
        nonce=nonce,
        nonce_value=int(nonce, 16) if _HEXADECIMAL.fullmatch(nonce) else None,
        cnonce=_http_field(fields, "cnonce"),
        nonce_count=nonce_count,
        response=_http_field(fields, "response"),
        algorithm=fields.get("algorithm", Algorithm.MD5.value),
        method=authorization.method,
        uri=authorization.uri,
    )


def _frame_field(auth: Mapping[str, JsonValue], name: str) -> str:
    value = auth.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and name in {"nonce", "cnonce"}:
        value = str(value)
    if not isinstance(value, str):
        raise MalformedAuthError(f"auth.{name} must be a string, got {describe(value)}")
    return _checked(f"auth.{name}", value)


def _http_field(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise MalformedAuthError(f"the Authorization header has no {name}")
    return _checked(name, fields[name])


def _checked(name: str, value: str) -> str:
    if not 0 < len(value) <= _MAX_LENGTH:
        raise MalformedAuthError(f"{name} must have 1 to {_MAX_LENGTH} characters")
    return value


def _http_fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _HTTP_PARAMETER.match(text, position)
        if match is None:
            raise MalformedAuthError(
                f"the Authorization header ends in {describe(text[position:])}"
            )
        name, quoted, token = match.groups()
        if name.lower() in fields:
            raise MalformedAuthError(f"the Authorization header has {name.lower()} twice")
        fields[name.lower()] = token if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
        position = match.end()
    return fields

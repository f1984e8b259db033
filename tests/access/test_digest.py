import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.access.digest import (
    Algorithm,
    Challenge,
    MalformedAuthError,
    PasswordFile,
    Proof,
    answer_in_frame,
    is_proven,
    parse_authorization,
    parse_frame_auth,
    password_hash,
)
from rpc_shim.dispatch import HttpAuthorization
from rpc_shim.frame import JsonValue

REALM = "http-auth@example.org"
# RFC 7616, section 3.9.1
RFC_7616 = {
    Algorithm.MD5: "8ca523f5e9506fed4657c9700eebdbec",
    Algorithm.SHA_256: "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
}
HEADER = (
    'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", '
    'algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
    'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="{response}", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
AUTH: dict[str, JsonValue] = {
    "realm": "RPC",
    "username": "alice",
    "nonce": 5,
    "cnonce": 77,
    "response": "00",
    "algorithm": "MD5",
}


def header_of(text: str, *, method: str = "GET", uri: str = "/dir/index.html") -> Proof | None:
    return parse_authorization(HttpAuthorization(method, uri, text))


def password_file(*users: tuple[str, str, str], algorithm: Algorithm) -> PasswordFile:
    lines = [
        f"{user}:{realm}:{password_hash(algorithm, user, realm, password)}\n"
        for user, realm, password in users
    ]
    return PasswordFile.parse("".join(lines).encode())


@pytest.mark.parametrize("algorithm", Algorithm)
def test_vectors_of_rfc_7616(algorithm: Algorithm) -> None:
    response = RFC_7616[algorithm]
    proof = header_of(HEADER.format(algorithm=algorithm.value, response=response))
    assert proof is not None
    passwords = password_file(("Mufasa", REALM, "Circle of Life"), algorithm=algorithm)
    assert is_proven(proof, passwords, REALM, algorithm)
    other = Algorithm.MD5 if algorithm is Algorithm.SHA_256 else Algorithm.SHA_256
    assert not is_proven(proof, passwords, REALM, other)
    assert not is_proven(proof, passwords, "RPC", algorithm)
    assert not is_proven(proof, PasswordFile({}), REALM, algorithm)
    wrong = password_file(("Mufasa", REALM, "Circle of life"), algorithm=algorithm)
    assert not is_proven(proof, wrong, REALM, algorithm)


@pytest.mark.parametrize("response", ["", "8ca5", "8" * 32, "8" * 33, "\u0131" * 32])
def test_a_part_of_the_response_is_not_enough(response: str) -> None:
    proof = Proof("Mufasa", REALM, "1", 1, "2", "1", response, "MD5")
    passwords = password_file(("Mufasa", REALM, "Circle of Life"), algorithm=Algorithm.MD5)
    assert not is_proven(proof, passwords, REALM, Algorithm.MD5)


def test_nobody_proves_a_user_that_is_not_in_the_file() -> None:
    a2 = hashlib.md5(b"dummy_method:dummy_uri", usedforsecurity=False).hexdigest()
    response = hashlib.md5(f":1:1:2:auth:{a2}".encode(), usedforsecurity=False).hexdigest()
    proof = Proof("eve", REALM, "1", 1, "2", "1", response, "MD5")
    assert not is_proven(proof, PasswordFile({}), REALM, Algorithm.MD5)


def test_header_of_curl() -> None:
    proof = header_of(
        'Digest username="a\\"b",realm="RPC",nonce="4c4b40",uri="/rpc/Sys.GetInfo?a=1,b",'
        'cnonce="ZjQ=",nc=00000002,algorithm=SHA-256,response="00ff",qop="auth"',
        method="POST",
        uri="/rpc/Sys.GetInfo?a=1,b",
    )
    assert proof == Proof(
        username='a"b',
        realm="RPC",
        nonce="4c4b40",
        nonce_value=5_000_000,
        cnonce="ZjQ=",
        nonce_count="00000002",
        response="00ff",
        algorithm="SHA-256",
        method="POST",
        uri="/rpc/Sys.GetInfo?a=1,b",
    )


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Digest", "Digested a=b", "Bearer x"])
def test_other_schemes_prove_nothing(header: str) -> None:
    assert header_of(header) is None


_WHOLE = HEADER.format(algorithm="MD5", response="00")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('username="Mufasa", ', "", "has no username"),
        ('username="Mufasa"', 'username=""', "username must have 1 to 255 characters"),
        ('username="Mufasa"', f'username="{"x" * 256}"', "username must have 1 to 255"),
        ('username="Mufasa"', 'username="Muf"asa"', "header ends in"),
        ('username="Mufasa"', "username", "header ends in"),
        ('username="Mufasa"', 'username="Mufasa", Username="x"', "has username twice"),
        ('uri="/dir/index.html"', 'uri="/"', "uri must be the request's, '/dir/index.html'"),
        ('uri="/dir/index.html", ', "", "uri must be the request's"),
        ("qop=auth", "qop=auth-int", "qop must be auth, got 'auth-int'"),
        ("qop=auth, ", "", "has no qop"),
        ("nc=00000001", "nc=x", "nc must be hex digits"),
        ("nc=00000001", "nc=000000001", "nc must be hex digits"),
        ('response="00"', 'response="', "header ends in"),
    ],
)
def test_malformed_header(old: str, new: str, problem: str) -> None:
    assert header_of(_WHOLE) is not None
    assert old in _WHOLE
    with pytest.raises(MalformedAuthError, match=problem):
        header_of(_WHOLE.replace(old, new))


@given(st.text() | st.text(st.characters(codec=None)), st.text())
def test_no_header_does_more_than_being_refused(text: str, uri: str) -> None:
    try:
        proof = header_of(f"Digest {text}", uri=uri)
    except MalformedAuthError:
        return
    assert proof is None or (proof.uri == uri and proof.response)


@given(
    username=st.text(min_size=1, max_size=255),
    response=st.text(st.characters(codec=None), min_size=1, max_size=255),
)
def test_quoted_values_are_read_back(username: str, response: str) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = (
        f"digest  USERNAME={quoted(username)} ,realm=r,nonce=xyz, nc=a,cnonce=c ,"
        f'qop="auth",uri="/dir/index.html",response = {quoted(response)} '
    )
    proof = header_of(header)
    assert proof is not None
    assert (proof.username, proof.response) == (username, response)
    assert (proof.nonce_value, proof.algorithm) == (None, "MD5")
    assert not is_proven(proof, PasswordFile({}), "r", Algorithm.MD5)


def test_auth_object_of_mos() -> None:
    proof = parse_frame_auth(AUTH)
    assert proof == Proof("alice", "RPC", "5", 5, "77", "1", "00", "MD5")
    assert parse_frame_auth(AUTH | {"nonce": "5", "cnonce": "77"}) == proof
    assert parse_frame_auth({name: AUTH[name] for name in list(AUTH)[:-1]}) == proof
    assert parse_frame_auth(AUTH | {"nonce": "-5"}).nonce_value is None
    assert parse_frame_auth(AUTH | {"nonce": "\u0665"}).nonce_value is None


@pytest.mark.parametrize("name", ["realm", "username", "nonce", "cnonce", "response"])
@pytest.mark.parametrize("value", [None, "", True, 1.5, [], {}, "x" * 256])
def test_malformed_auth_object(name: str, value: JsonValue) -> None:
    with pytest.raises(MalformedAuthError, match=rf"auth\.{name} must"):
        parse_frame_auth(AUTH | {name: value})


@pytest.mark.parametrize("name", ["realm", "username", "response", "algorithm"])
def test_a_number_is_no_name(name: str) -> None:
    with pytest.raises(MalformedAuthError, match=rf"auth\.{name} must be a string, got 5"):
        parse_frame_auth(AUTH | {name: 5})


@pytest.mark.parametrize("algorithm", Algorithm)
@given(user=st.text(min_size=1, max_size=20), password=st.text(), cnonce=st.integers(0, 2**32 - 1))
def test_answer_to_a_challenge_is_a_proof(
    algorithm: Algorithm, user: str, password: str, cnonce: int
) -> None:
    challenge = Challenge("RPC", algorithm, 12345)
    proof = parse_frame_auth(answer_in_frame(challenge, user, password, cnonce))
    ha1 = password_hash(algorithm, user, "RPC", password)
    passwords = PasswordFile({(user, "RPC", algorithm.length): ha1})
    assert is_proven(proof, passwords, "RPC", algorithm)
    other = PasswordFile({(user, "RPC", algorithm.length): algorithm.hash("another")})
    assert not is_proven(proof, other, "RPC", algorithm)


@given(
    st.builds(
        Challenge,
        realm=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)),
        algorithm=st.sampled_from(Algorithm),
        nonce=st.integers(0, 2**63 - 1),
        stale=st.booleans(),
    )
)
def test_challenge_in_a_message(challenge: Challenge) -> None:
    assert Challenge.parse(challenge.as_message()) == challenge


@pytest.mark.parametrize(
    "message",
    [
        "unauthorized",
        '{"auth_type":"digest","nonce":5,"realm":"a\\r\\nX: b"}',
        "5",
        "{}",
        '{"auth_type":"basic","nonce":5,"realm":"r"}',
        '{"auth_type":"digest","nonce":"5","realm":"r"}',
        '{"auth_type":"digest","nonce":true,"realm":"r"}',
        '{"auth_type":"digest","nonce":5,"realm":null}',
        '{"auth_type":"digest","nonce":5,"realm":"r","algorithm":"SHA-512"}',
        '{"auth_type":"digest","nonce":5,"realm":"r","algorithm":{}}',
        "\udc80",
    ],
)
def test_messages_that_are_no_challenge(message: str) -> None:
    assert Challenge.parse(message) is None


def test_challenge_in_a_header_as_mos_takes_it_apart() -> None:
    header = Challenge("R P C", Algorithm.SHA_256, 0xCAFE, stale=True).as_header()
    fields = {}
    for match in re.finditer(r'(\w+)="([^"]*?)"|(\w+)=([^\s"]+)', header):
        fields[match[1] or match[3]] = match[2] or match[4]
    assert header.startswith("Digest ")
    assert fields.pop("stale") == "true,"
    assert fields == {"qop": "auth", "realm": "R P C", "nonce": "cafe", "algorithm": "SHA-256"}
    assert "stale" not in Challenge("RPC", Algorithm.MD5, 1).as_header()


def test_password_file() -> None:
    md5, sha256 = "A" * 32, "b" * 64
    text = f"alice:RPC:{md5}\r\n\nalice:RPC:{sha256}\nalice:RPC:{'0' * 32}\nbob::{md5}"
    passwords = PasswordFile.parse(text.encode())
    assert passwords.hashes == {
        ("alice", "RPC", 32): "a" * 32,
        ("alice", "RPC", 64): sha256,
        ("bob", "", 32): "a" * 32,
    }
    assert not passwords.problems


@pytest.mark.parametrize(
    "line",
    [
        b"alice",
        b"alice:RPC",
        b"alice:RPC:",
        b"alice:RPC:00",
        b":RPC:" + b"0" * 32,
        b"alice:RPC:x:" + b"0" * 32,
        b"ali\xffce:RPC:" + b"0" * 32,
    ],
)
def test_bad_lines_let_nobody_in(line: bytes) -> None:
    passwords = PasswordFile.parse(b"bob:RPC:" + b"0" * 32 + b"\n" + line)
    assert list(passwords.hashes) == [("bob", "RPC", 32)]
    assert passwords.problems == ("line 2 is not user:realm:hash",)


@given(st.binary())
def test_any_file_can_be_read(data: bytes) -> None:
    passwords = PasswordFile.parse(data)
    for (user, realm, length), digits in passwords.hashes.items():
        assert len(digits) == length
        assert f"{user}:{realm}:".encode() in data

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from otasim.commands.call import call
from platforms.clock import NS_PER_S, Clock
from platforms.machine import ResetAsserted
from rpc_shim.access.digest import Algorithm, Challenge, answer_in_frame, password_hash
from rpc_shim.access.guard import AccessGuard
from rpc_shim.client import Credentials, RpcClient, RpcClientError
from rpc_shim.config.configuration import Configuration
from rpc_shim.dispatch import Channel, ChannelKind, HttpAuthorization, RpcError
from rpc_shim.frame import JsonValue, ReplyAddress, Request
from tests.config.files import Files
from tests.rpc.mos import needs_mos, run_mos
from tests.rpc.serving import serve

UART = Channel("UART", "UART2")
PASSWORDS = {"alice": "secret", "bob": "hunter2", "mallory": "x"}
ACL = '[{"method": "RPC.Ping", "acl": "*"}, {"method": "Sys.Reboot", "acl": "-*"},'
ACL += '{"ch_type": "UDP", "acl": "-*"}, {"method": "*", "acl": "+alice,-mallory,b*"}]'

FIRST_NONCE = 1733129825052633
"""The first one that a `Guarded` issues, for it has always the same seed."""


def htdigest(algorithm: Algorithm = Algorithm.MD5, realm: str = "RPC") -> bytes:
    return "".join(
        f"{user}:{realm}:{password_hash(algorithm, user, realm, password)}\n"
        for user, password in PASSWORDS.items()
    ).encode()


@dataclass
class Guarded:
    """A guard with what it needs; rules and passwords are set."""

    files: Files = field(default_factory=lambda: Files({"users": htdigest()}))
    clock: Clock = field(default_factory=Clock)
    log: list[str] = field(default_factory=list)
    config: JsonValue = None

    def __post_init__(self) -> None:
        self.clock.advance_to(100 * NS_PER_S)
        files = Files(
            {} if self.config is None else {"conf9.json": json.dumps(self.config).encode()}
        )
        self.configuration = Configuration(files, self.log.append)
        self.configuration.change({"rpc": {"acl": ACL, "auth_file": "users"}})
        self.guard = AccessGuard(self.configuration, self.files.read, self.clock, self.log.append)

    def set_up(self, **rpc: JsonValue) -> None:
        self.configuration.change(rpc, "rpc")

    def ask(
        self,
        method: str = "Sys.GetInfo",
        auth: dict[str, JsonValue] | None = None,
        channel: Channel = UART,
    ) -> tuple[int, str] | None:
        """What the guard refuses with; None when it lets the request through."""
        try:
            self.guard(Request(method, ReplyAddress(1), auth=auth), channel)
        except RpcError as error:
            return error.code, error.message
        return None

    def code(
        self,
        method: str = "Sys.GetInfo",
        auth: dict[str, JsonValue] | None = None,
        channel: Channel = UART,
    ) -> int | None:
        refused = self.ask(method, auth, channel)
        return None if refused is None else refused[0]

    def challenge(self, channel: Channel = UART) -> Challenge:
        refused = self.ask(channel=channel)
        assert refused is not None
        assert refused[0] == 401
        challenge = Challenge.parse(refused[1])
        assert challenge is not None
        return challenge

    def auth(self, user: str = "alice", password: str | None = None) -> dict[str, JsonValue]:
        """A new proof; the right one unless another password is given."""
        return answer_in_frame(self.challenge(), user, password or PASSWORDS[user], 7)


# -- rules ----------------------------------------------------------------------------------------


def test_without_rules_everything_is_allowed() -> None:
    guarded = Guarded()
    guarded.set_up(acl="")
    assert guarded.code("Any.Thing") is None


def test_rules_that_need_no_user() -> None:
    guarded = Guarded()
    assert guarded.ask("RPC.Ping") is None
    assert guarded.ask("Sys.Reboot") == (403, "unauthorized")
    assert guarded.ask(channel=Channel("UDP")) == (403, "unauthorized")
    guarded.set_up(acl='[{"method": "Sys.*", "acl": "+*"}]')
    assert guarded.ask("Sys.Reboot") is None
    assert guarded.ask("RPC.Ping") == (403, "unauthorized")


def test_a_change_counts_from_the_next_request_on() -> None:
    guarded = Guarded()
    assert guarded.code() == 401
    guarded.set_up(acl='[{"method": "**", "acl": "-*"}]')
    assert guarded.code() == 403
    guarded.set_up(acl="")
    assert guarded.code() is None


@pytest.mark.parametrize("key", ["acl", "acl_file"])
def test_rules_in_a_file(key: str) -> None:
    guarded = Guarded()
    guarded.set_up(**{"acl": "", key: "@acl.json" if key == "acl" else "acl.json"})
    guarded.files.contents["acl.json"] = b'[{"method": "Sys.*", "acl": "*"}]'
    assert guarded.code("Sys.GetInfo") is None
    assert guarded.code("RPC.Ping") == 403
    guarded.files.contents["acl.json"] = b'[{"method": "RPC.*", "acl": "*"}]'
    assert guarded.code("Sys.GetInfo") == 403


@pytest.mark.parametrize(
    ("rpc", "problem"),
    [
        ({"acl_file": "good"}, "both rpc.acl and rpc.acl_file are set"),
        ({"acl": "@missing"}, "'missing' cannot be read"),
        ({"acl": "@"}, "not JSON"),
        ({"acl": "", "acl_file": "missing"}, "'missing' cannot be read"),
        ({"acl": "@empty"}, "not JSON"),
        ({"acl": "@bad"}, "access rule 2 must have acl"),
    ],
)
def test_rules_that_cannot_be_used_let_nobody_through(rpc: dict[str, str], problem: str) -> None:
    guarded = Guarded()
    guarded.files.contents |= {
        "good": b'[{"method": "**", "acl": "*"}]',
        "empty": b"",
        "bad": b'[{"method": "**", "acl": "*"}, {}]',
    }
    auth = guarded.auth()
    guarded.configuration.change(dict(rpc), "rpc")
    for method in ("RPC.Ping", "Sys.GetInfo"):
        assert guarded.ask(method, auth) == (500, "the access rules cannot be used")
        assert problem in guarded.log[-1]


def test_a_file_system_that_does_not_work_lets_nobody_through() -> None:
    guarded = Guarded()
    auth = guarded.auth()
    guarded.files.broken.add("read")
    assert guarded.ask(auth=auth) == (500, "failed to open password file")
    guarded.set_up(acl="@acl.json")
    assert guarded.ask("RPC.Ping") == (500, "the access rules cannot be used")
    assert any("read failed" in line for line in guarded.log)


def test_a_reset_while_a_file_is_read_is_no_refusal() -> None:
    guarded = Guarded()

    def read(_name: str) -> bytes:
        raise ResetAsserted

    guard = AccessGuard(guarded.configuration, read, guarded.clock, guarded.log.append)
    guarded.set_up(acl="@acl.json")
    with pytest.raises(ResetAsserted):
        guard(Request("RPC.Ping", ReplyAddress(1)), UART)


@pytest.mark.parametrize("rpc", [{"acl": 5}, {"acl": "[{"}, {"auth_file": None}, 5])
def test_a_damaged_configuration_lets_nobody_through_but_who_repairs_it(rpc: JsonValue) -> None:
    guarded = Guarded(config={"rpc": rpc})
    for method in (
        "RPC.Ping",
        "Sys.GetInfo",
        "OTA.Update",
        "Config.Set",
        "Config.Save",
        "fs",
        "FS",
    ):
        refused = guarded.ask(method)
        assert refused is not None
        assert refused[0] == 500
        assert "the configuration is damaged" in refused[1]
    for method in ("FS.List", "FS.Get", "FS.Put", "FS.Remove", "FS.Mkfs", "Sys.Reboot"):
        assert guarded.ask(method) is None
        for kind in get_args(ChannelKind):
            assert guarded.code(method, channel=Channel(kind)) == (None if kind == "UART" else 500)


# -- proofs in frames -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", Algorithm)
def test_users_are_let_through_as_the_rules_say(algorithm: Algorithm) -> None:
    guarded = Guarded()
    guarded.set_up(auth_algo=0 if algorithm is Algorithm.MD5 else 1, auth_domain="lab")
    guarded.files.contents["users"] = htdigest(algorithm, "lab")
    challenge = guarded.challenge()
    assert (challenge.realm, challenge.algorithm) == ("lab", algorithm)
    assert guarded.code(auth=guarded.auth("alice")) is None
    assert guarded.code(auth=guarded.auth("bob")) is None
    assert guarded.ask(auth=guarded.auth("mallory")) == (403, "unauthorized")
    assert guarded.code(auth=guarded.auth("alice", "wrong")) == 401
    assert guarded.code(auth=guarded.auth("carol", "secret")) == 401
    assert guarded.ask("Sys.Reboot", guarded.auth("alice")) == (403, "unauthorized")


def test_a_response_may_be_in_capital_letters() -> None:
    guarded = Guarded()
    auth = guarded.auth()
    assert guarded.code(auth=auth | {"response": str(auth["response"]).upper()}) is None


def test_challenge_is_the_message_of_the_device() -> None:
    refused = Guarded().ask()
    assert refused is not None
    assert json.loads(refused[1]) == {
        "auth_type": "digest",
        "nonce": FIRST_NONCE,
        "nc": 1,
        "realm": "RPC",
        "algorithm": "MD5",
    }


def test_a_proof_opens_once() -> None:
    guarded = Guarded()
    auth = guarded.auth()
    assert guarded.code(auth=auth) is None
    refused = guarded.ask("FS.Remove", auth)
    assert refused is not None
    assert refused[0] == 401
    assert json.loads(refused[1])["stale"] is True


@pytest.mark.parametrize("method", ["RPC.Ping", "Sys.Reboot"])
def test_a_proof_that_nobody_has_asked_for_is_used_all_the_same(method: str) -> None:
    guarded = Guarded()
    auth = guarded.auth()
    assert guarded.code(method, auth) == {"RPC.Ping": None, "Sys.Reboot": 403}[method]
    assert guarded.code(auth=auth) == 401
    overheard = http_channel(guarded)
    assert guarded.code(method, channel=overheard) == {"RPC.Ping": None, "Sys.Reboot": 403}[method]
    assert guarded.code(channel=again(overheard)) == 401


def test_a_proof_is_used_where_there_are_no_rules_or_bad_ones() -> None:
    guarded = Guarded()
    for acl, code in (("", None), ("@missing", 500)):
        auth = guarded.auth()
        guarded.set_up(acl=acl)
        assert guarded.code(auth=auth) == code
        guarded.set_up(acl=ACL)
        assert guarded.code(auth=auth) == 401


def test_of_two_proofs_both_are_used() -> None:
    guarded = Guarded()
    auth, channel = guarded.auth(), http_channel(guarded, "bob")
    assert guarded.code(auth=auth, channel=channel) is None
    assert guarded.code(auth=auth) == 401
    assert guarded.code(channel=again(channel)) == 401


def test_a_proof_ends_with_its_hour_and_with_the_boot() -> None:
    guarded = Guarded()
    guarded.clock.advance_to(150 * NS_PER_S)
    auth = guarded.auth()
    again = Guarded(clock=guarded.clock)
    assert again.code(auth=auth) == 401
    guarded.clock.advance_to(3800 * NS_PER_S)
    assert guarded.code(auth=auth) == 401
    assert guarded.code(auth=guarded.auth()) is None


@pytest.mark.parametrize(
    "change", [{"realm": "other"}, {"algorithm": "SHA-256"}, {"algorithm": "SHA-512"}]
)
def test_another_realm_or_algorithm_gets_a_challenge_that_says_what_is_expected(
    change: dict[str, JsonValue],
) -> None:
    guarded = Guarded()
    assert guarded.code(auth=guarded.auth() | change) == 401
    assert guarded.challenge().realm == "RPC"


def test_auth_that_cannot_be_read_is_a_bad_request() -> None:
    guarded = Guarded()
    auth = {name: value for name, value in guarded.auth().items() if name != "cnonce"}
    assert guarded.ask(auth=auth) == (400, "bad request: auth.cnonce must be a string, got null")
    assert guarded.code("RPC.Ping", auth) is None  # nobody has asked for it


def test_without_a_password_file_nobody_is_known() -> None:
    guarded = Guarded()
    auth = guarded.auth()
    guarded.set_up(auth_file="missing")
    assert guarded.ask() != (500, "failed to open password file")
    assert guarded.ask(auth=auth) == (500, "failed to open password file")
    guarded.set_up(auth_file="")
    assert guarded.code(auth=auth) == 401
    guarded.set_up(auth_file="users", auth_domain="")
    assert guarded.code(auth=auth) == 401
    assert guarded.code(auth={}) == 401  # not even looked at


def test_bad_lines_of_the_password_file_are_told() -> None:
    guarded = Guarded()
    guarded.files.contents["users"] = b"nonsense\n" + htdigest()
    assert guarded.code(auth=guarded.auth()) is None
    assert guarded.log[-1] == (
        "access: 1 bad lines in 'users', the first: line 1 is not user:realm:hash"
    )


ANYTHING: st.SearchStrategy[JsonValue] = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.just([1])
)
TAMPERED = st.fixed_dictionaries(
    {
        "user": st.sampled_from([*PASSWORDS, "carol"]),
        "password": st.sampled_from([*PASSWORDS.values(), "wrong"]),
        "changes": st.dictionaries(
            st.sampled_from(["realm", "username", "nonce", "cnonce", "algorithm", "response"]),
            ANYTHING | st.sampled_from([*PASSWORDS, "RPC", "MD5", "SHA-256", FIRST_NONCE, 7, "7"]),
            max_size=2,
        ),
        "removed": st.sets(
            st.sampled_from(["realm", "username", "algorithm", "cnonce"]), max_size=1
        ),
    }
)


def reference_response(auth: dict[str, JsonValue], password: str) -> str:
    """The response as RFC 7616 has it, worked out without the code that is tested."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    ha1 = md5(f"{auth['username']}:RPC:{password}")
    ha2 = md5("dummy_method:dummy_uri")
    return md5(f"{ha1}:{auth['nonce']}:1:{auth['cnonce']}:auth:{ha2}")


@given(TAMPERED | st.dictionaries(st.text(), ANYTHING))
def test_whatever_comes_only_a_right_proof_of_an_allowed_user_opens(
    given_auth: dict[str, JsonValue],
) -> None:
    guarded = Guarded()
    auth = given_auth
    if "changes" in given_auth:
        auth = guarded.auth(str(given_auth["user"]), str(given_auth["password"]))
        changes, removed = given_auth["changes"], given_auth["removed"]
        assert isinstance(changes, dict)
        assert isinstance(removed, set)
        auth = {name: value for name, value in (auth | changes).items() if name not in removed}
    user = auth.get("username")
    is_right = (
        isinstance(user, str)
        and user in {"alice", "bob"}
        and auth.get("realm") == "RPC"
        and auth.get("algorithm", "MD5") == "MD5"
        and str(auth.get("nonce")) == str(FIRST_NONCE)
        and auth.get("cnonce") is not None
        and str(auth.get("response")).lower() == reference_response(auth, PASSWORDS[user])
    )
    assert (guarded.code(auth=auth) is None) == is_right


# -- proofs in HTTP headers -----------------------------------------------------------------------


def http_channel(
    guarded: Guarded, user: str = "alice", *, uri: str = "/rpc", count: str = "00000001"
) -> Channel:
    challenge = guarded.challenge()
    ha1 = challenge.algorithm.hash(f"{user}:{challenge.realm}:{PASSWORDS[user]}")
    ha2 = challenge.algorithm.hash("POST:/rpc")
    nonce = f"{challenge.nonce:x}"
    response = challenge.algorithm.hash(f"{ha1}:{nonce}:{count}:abc:auth:{ha2}")
    header = (
        f'Digest username="{user}", realm="RPC", uri="{uri}", algorithm=MD5, nonce="{nonce}", '
        f'nc={count}, cnonce="abc", qop=auth, response="{response}"'
    )
    return Channel("HTTP", "127.0.0.1:80", HttpAuthorization("POST", "/rpc", header))


def again(channel: Channel) -> Channel:
    """Another HTTP request with the same header."""
    assert channel.authorization is not None
    return replace(channel, authorization=replace(channel.authorization))


def test_proof_in_a_header() -> None:
    guarded = Guarded()
    channel = http_channel(guarded)
    assert guarded.code(channel=channel) is None
    assert guarded.code(channel=channel) is None, "another call of the same HTTP request"
    assert guarded.code(channel=again(channel)) == 401, "another HTTP request"
    assert guarded.code(channel=http_channel(guarded, count="00000002")) is None
    assert guarded.code(channel=http_channel(guarded, "mallory")) == 403
    assert guarded.code(channel=http_channel(guarded, uri="/other")) == 400


def test_a_header_that_proves_nothing() -> None:
    guarded = Guarded()
    basic = Channel("HTTP", "", HttpAuthorization("POST", "/rpc", "Basic YWxpY2U6c2VjcmV0"))
    assert guarded.code(channel=basic) == 401
    broken = Channel("HTTP", "", HttpAuthorization("POST", "/rpc", "Digest username="))
    assert guarded.code(channel=broken) == 400


def test_a_proof_is_for_its_own_method_and_uri() -> None:
    guarded = Guarded()
    authorization = http_channel(guarded).authorization
    assert authorization is not None
    other = HttpAuthorization("GET", "/rpc", authorization.header)
    assert guarded.code(channel=Channel("HTTP", "", other)) == 401


@given(st.text() | st.text().map(lambda text: f"Digest {text}"))
def test_no_header_without_a_right_response_opens(header: str) -> None:
    channel = Channel("HTTP", "", HttpAuthorization("POST", "/rpc", header))
    assert Guarded().code(channel=channel) in {400, 401}


CURL = shutil.which("curl")


@contextmanager
def http_server(guarded: Guarded) -> Iterator[str]:
    """A server that asks the guard about each request, and answers with the method."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            header = self.headers.get("Authorization")
            authorization = header and HttpAuthorization("GET", self.path, header)
            refused = guarded.ask("Sys.GetInfo", channel=Channel("HTTP", "", authorization or None))
            self.send_response(200 if refused is None else refused[0])
            challenge = None if refused is None else Challenge.parse(refused[1])
            if challenge is not None:
                self.send_header("WWW-Authenticate", challenge.as_header())
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok" if refused is None else b"no")

        def log_message(self, *_arguments: object) -> None:
            """Tests are silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("algorithm", Algorithm)
def test_curl(algorithm: Algorithm) -> None:
    guarded = Guarded()
    guarded.set_up(auth_algo=0 if algorithm is Algorithm.MD5 else 1)
    guarded.files.contents["users"] = htdigest(algorithm)
    with http_server(guarded) as url:

        def curl(credentials: str) -> list[str]:
            urls = [f"{url}/rpc/Sys.GetInfo?a={number}" for number in range(3)]
            options = ["-s", "-w", "%{http_code} ", "--digest", "-u", credentials]
            return subprocess.run(
                [CURL or "curl", *options, *urls], capture_output=True, text=True, check=True
            ).stdout.split()

        assert curl("alice:secret") == ["ok200", "ok200", "ok200"]
        assert curl("mallory:x")[0] == "no403"
        wrong = curl("alice:wrong")
        assert wrong[0].endswith("no401")


# -- real clients ---------------------------------------------------------------------------------


def test_own_client(tmp_path: Path) -> None:
    guarded = Guarded()
    with serve(tmp_path / "port", guard=guarded.guard) as device:

        def client(credentials: str | None) -> RpcClient:
            return RpcClient.open(
                device.port, credentials=Credentials.parse(credentials) if credentials else None
            )

        with client("alice:secret") as allowed:
            assert [allowed.call("Echo", {"a": 1}), allowed.call("Echo")] == [{"a": 1}, None]
            with pytest.raises(RpcClientError, match="error 403: unauthorized"):
                allowed.call("Sys.Reboot")
        for credentials in (None, "alice:wrong", "carol:secret"):
            with client(credentials) as stranger:
                assert stranger.call("RPC.Ping") == {"channel_info": "UART2"}
                with pytest.raises(RpcClientError) as caught:
                    stranger.call("Echo")
                assert caught.value.code == 401


@pytest.mark.parametrize(
    ("options", "exit_code", "output"),
    [
        (["--rpc-creds", "alice:secret"], 0, "{"),
        (["--rpc-creds", "@{file}"], 0, "{"),
        ([], 1, "use --rpc-creds USER:PASSWORD"),
        (["--rpc-creds", "alice:wrong"], 1, "does not know this user with this password"),
        (["--rpc-creds", "alice"], 2, "expected USER:PASSWORD, or @FILE"),
        (["--rpc-creds", ":secret"], 2, "expected USER:PASSWORD, or @FILE"),
        (["--rpc-creds", "@{file}.not"], 2, "No such file"),
    ],
)
def test_call_command(tmp_path: Path, options: list[str], exit_code: int, output: str) -> None:
    file = tmp_path / "credentials"
    file.write_text("alice:secret\n")
    with serve(tmp_path / "port", guard=Guarded().guard) as device:
        arguments = ["Echo", '{"a": 1}', "--port", device.port]
        arguments += [option.format(file=file) for option in options]
        result = CliRunner().invoke(call, arguments)
    assert result.exit_code == exit_code
    assert output in result.output


def test_credentials_keep_the_password_to_themselves() -> None:
    credentials = Credentials.parse("alice:a:b")
    assert credentials == Credentials("alice", "a:b")
    assert "a:b" not in repr(credentials)


@needs_mos
@pytest.mark.parametrize("algorithm", Algorithm)
def test_mos(tmp_path: Path, algorithm: Algorithm) -> None:
    guarded = Guarded()
    guarded.set_up(auth_algo=0 if algorithm is Algorithm.MD5 else 1)
    guarded.files.contents["users"] = htdigest(algorithm)
    with serve(tmp_path / "port", guard=guarded.guard) as device:

        def echo(*options: str) -> subprocess.CompletedProcess[str]:
            return run_mos(tmp_path, device.port, *options, "call", "Echo", '{"a": 1}')

        for _ in range(2):
            assert json.loads(echo("--rpc-creds", "alice:secret").stdout) == {"a": 1}
        assert "remote error 401" in echo("--rpc-creds", "alice:wrong").stderr
        assert "remote error 403: unauthorized" in echo("--rpc-creds", "mallory:x").stderr
        assert "credentials required" in echo().stderr

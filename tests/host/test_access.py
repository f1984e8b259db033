"""Who may call what, on a running board, with the real tools on every transport."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpc_shim.client import Credentials, RpcClient, RpcClientError
from rpc_shim.frame import JsonValue
from tests.host.running_board import PATIENCE_S, RunningBoard, on_all_transports
from tests.host.test_tools import TRANSPORTS, url_of
from tests.host.tools import CURL, Mos, ToolError, curl, exact_client
from tests.rpc.mos import needs_mos

USER, PASSWORD = "alice", "open sesame"
RULES = [
    {"method": "Sys.GetInfo", "acl": f"+{USER},-*"},
    {"method": "OTA.*", "acl": f"+{USER},-*"},
    {"method": "FS.*", "ch_type": "HTTP", "acl": "-*"},
    {"method": "*", "acl": "*"},
]


@pytest.fixture(scope="module", params=["MD5", "SHA-256"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBoard]:
    folder = tmp_path_factory.mktemp("guarded")
    digest = hashlib.md5 if request.param == "MD5" else hashlib.sha256
    ha1 = digest(f"{USER}:RPC:{PASSWORD}".encode()).hexdigest()
    with on_all_transports(folder) as board:
        tool = exact_client("tcp", str(board.ready["tcp"]))
        users = folder / "users.txt"
        users.write_text(f"{USER}:RPC:{ha1}\n")
        tool.put(users)
        for key, value in (
            ("rpc.auth_file", users.name),
            ("rpc.auth_algo", 0 if request.param == "MD5" else 1),
            ("rpc.acl", json.dumps(RULES)),
        ):
            tool.call("Config.Set", {"key": key, "value": value})
        yield board


@needs_mos
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_mos_gets_in_with_its_credentials_only(guarded: RunningBoard, transport: str) -> None:
    tool = Mos(url_of(guarded, transport))
    assert json.loads(tool.run("call", "RPC.Ping"))
    with pytest.raises(ToolError, match=r"401|credentials required|authentication failed"):
        tool.run("call", "Sys.GetInfo")
    with pytest.raises(ToolError, match=r"401|credentials required|authentication failed"):
        tool.run("--rpc-creds", f"{USER}:wrong", "call", "Sys.GetInfo")
    info = json.loads(tool.run("--rpc-creds", f"{USER}:{PASSWORD}", "call", "Sys.GetInfo"))
    assert info["app"] == "sample"


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl_gets_in_with_digest_authentication_only(
    guarded: RunningBoard, tmp_path: Path
) -> None:
    base = url_of(guarded, "http")
    with pytest.raises(ToolError, match="401"):
        curl(f"{base}/Sys.GetInfo")
    with pytest.raises(ToolError, match="401"):
        curl(f"{base}/Sys.GetInfo", "--digest", "--user", f"{USER}:wrong")
    login = ("--digest", "--user", f"{USER}:{PASSWORD}")
    info = curl(f"{base}/Sys.GetInfo", *login)
    assert isinstance(info, dict)
    with pytest.raises(ToolError, match="403"):
        curl(f"{base}/FS.List", *login)
    # The upload goes by the rules of the OTA methods.
    bundle = tmp_path / "fw.zip"
    bundle.write_bytes(b"no bundle")
    root = base.removesuffix("/rpc")
    with pytest.raises(ToolError, match="401"):
        curl(f"{root}/update", "--form", f"file=@{bundle}")
    with pytest.raises(ToolError, match="is this a firmware bundle"):
        curl(f"{root}/update", *login, "--form", f"file=@{bundle}")


def test_our_client_gets_in_with_its_credentials_only(guarded: RunningBoard) -> None:
    port = str(guarded.link)
    with RpcClient.open(port, first_id=1) as client, pytest.raises(RpcClientError) as caught:
        client.call("Sys.GetInfo", timeout_s=PATIENCE_S)
    assert caught.value.code == 401
    credentials = Credentials(USER, PASSWORD)
    with RpcClient.open(port, first_id=1000, credentials=credentials) as client:
        assert client.call("Sys.GetInfo", timeout_s=PATIENCE_S)


def test_nobody_gets_in_by_a_notification(guarded: RunningBoard) -> None:
    """What asks for no answer is guarded, too."""
    boots = guarded.output.read_text().count("reset cause")
    tool = exact_client("tcp", url_of(guarded, "tcp"))
    subprocess.run(
        [CURL or "curl", "-s", "-d", '{"method":"OTA.Revert"}', url_of(guarded, "http")],
        check=False,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert tool.call("RPC.Ping")
    text = guarded.output.read_text()
    assert text.count("reset cause") == boots
    assert "'OTA.Revert' refused" in text


def test_a_board_that_goes_on_in_another_process_takes_no_proof_from_before(tmp_path: Path) -> None:
    """Both start at the same virtual time, with the same flash contents."""

    def ask(*settings: tuple[str, str]) -> JsonValue:
        with (
            RunningBoard("embedded", tmp_path, "--state", str(tmp_path / "state")) as board,
            RpcClient.open(str(board.link)) as client,
        ):
            for key, value in settings:
                arguments: dict[str, JsonValue] = {"key": key, "value": value, "save": True}
                client.call("Config.Set", arguments, timeout_s=PATIENCE_S)
            with pytest.raises(RpcClientError) as caught:
                client.call("Sys.GetInfo", timeout_s=PATIENCE_S)
            board.stop()
        assert caught.value.code == 401
        challenge: dict[str, JsonValue] = json.loads(caught.value.message)
        return challenge["nonce"]

    rules = json.dumps(RULES)
    ask(("rpc.auth_file", "users.txt"), ("rpc.acl", rules))
    assert ask() != ask()


@needs_mos
def test_mos_repairs_a_damaged_configuration_over_the_serial_port(tmp_path: Path) -> None:
    with RunningBoard("embedded", tmp_path, "--http", "0") as board:
        serial, network = Mos(str(board.link)), Mos(url_of(board, "http"))
        damaged = tmp_path / "conf9.json"
        damaged.write_text('{"rpc": {"acl": "[]')
        network.run("put", str(damaged))
        with board.expecting("config: DAMAGED", "reset cause: software"):
            network.run("call", "Sys.Reboot")
        for tool, arguments in (
            (network, ("ls",)),
            (network, ("rm", "conf9.json")),
            (serial, ("call", "Sys.GetInfo")),
        ):
            with pytest.raises(ToolError, match="the configuration is damaged"):
                tool.run(*arguments)
        assert "conf9.json" in serial.run("ls")
        serial.run("rm", "conf9.json")
        with board.expecting("reset cause: software"):
            serial.run("call", "Sys.Reboot")
        assert "conf9.json" not in network.run("ls")
        board.stop()

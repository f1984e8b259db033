"""Settings that the whole board obeys."""

import hashlib
import json
import ssl
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import firmware
from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.image_file import load_image
from rpc_shim.bundle.signature import format_public_key
from rpc_shim.client import RpcClientError
from rpc_shim.frame import JsonValue
from tests.board.files import put

INTERVAL_S = 100


def configure(board: Board, **settings: JsonValue) -> None:
    for name, value in settings.items():
        board.call("Config.Set", {"key": name.replace("__", "."), "value": value, "save": True})


def test_updates_are_looked_for_at_an_interval(board: Board, server: BundleServer) -> None:
    url = server.publish_sample("sample-1.0")
    configure(board, update__url=url, update__interval=INTERVAL_S, update__commit_timeout=7200)
    board.run(INTERVAL_S - 5)
    assert not board.trace.of_kind("update-started")
    board.run(10)
    assert "no update needed: sample 1.0" in board.console
    server.publish("sample-1.0.zip", bundle_of("sample-2.0"))
    board.run(INTERVAL_S)
    assert board.version == "2.0"
    state = board.call("OTA.GetBootState")
    assert isinstance(state, dict)
    assert (state["is_committed"], state["commit_timeout"]) == (False, 7200)
    # Nothing is looked for as long as nobody has decided about the last one.
    board.run(INTERVAL_S + 5)
    assert "cannot look for an update: Previous update has not been committed" in board.console


def test_a_bundle_that_calls_its_image_otherwise_is_installed_once(
    board: Board, server: BundleServer
) -> None:
    image = load_image(firmware.path("sample-2.0"))
    content = create_bundle(
        image,
        name="mine",
        version="5.0",
        build_id="own",
        build_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    )
    url = server.publish("mine.zip", content)
    configure(board, update__url=url, update__interval=INTERVAL_S)
    board.run(4 * INTERVAL_S)
    assert board.version == "2.0"
    assert len(board.trace.of_kind("update-finished")) == 1
    assert len(board.trace.of_kind("update-skipped")) == 2


def test_an_update_server_that_is_gone_is_told_of_once_each_time(board: Board) -> None:
    configure(board, update__url="http://127.0.0.1:1/fw.zip", update__interval=INTERVAL_S)
    board.run(2 * INTERVAL_S + 5)
    assert board.console.count("refused") == 2


def test_a_device_with_keys_takes_only_what_they_have_signed(
    board: Board, server: BundleServer
) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    configure(
        board,
        update__key0=format_public_key(key.public_key()),
        update__sig_req_mask=1,
    )
    before = board.boot_state

    def bundle(*keys: ec.EllipticCurvePrivateKey) -> bytes:
        return create_bundle(
            load_image(firmware.path("sample-2.0")),
            name="sample",
            version="2.0",
            build_id="b",
            build_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            signing_keys=keys,
        )

    tampered = bytearray(bundle(key))
    tampered[tampered.index(b'"version": "2.0"') + 12] ^= 3
    for name, content in (
        ("unsigned", bundle()),
        ("other", bundle(other)),
        ("tampered", bytes(tampered)),
    ):
        with pytest.raises(RpcClientError, match=r"Signature|CRC"):
            board.call("OTA.Update", {"url": server.publish(f"{name}.zip", content)})
        assert board.boot_state == before
    board.call("OTA.Update", {"url": server.publish("signed.zip", bundle(key))})
    board.run_until(lambda: board.version == "2.0")
    assert "ota: signed by key 0" in board.console


def test_only_known_users_may_call_what_rules_protect(board: Board) -> None:
    ha1 = hashlib.md5(b"alice:RPC:secret", usedforsecurity=False).hexdigest()
    put(board, "users.txt", f"alice:RPC:{ha1}\n".encode())
    rules = '[{"method": "Sys.Reboot", "acl": "+alice,-*"}, {"method": "*", "acl": "*"}]'
    configure(board, rpc__auth_file="users.txt", rpc__acl=rules)
    assert board.call("RPC.Ping")
    with pytest.raises(RpcClientError) as caught:
        board.call("Sys.Reboot")
    assert caught.value.code == 401
    assert "auth_type" in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        rb'{"rpc": {"acl": "[{\"method\":\"*\",\"acl\":\"-*\"}"}}',
        rb'{"rpc": {"acl": "[{\"method\":\"*\",\"acl\":\"-*\",\"by\":\"me\"}]"}}',
        b'{"rpc": {"acl": [{"method": "*", "acl": "-*"}]}}',
        b'{"update": {"sig_req_mask": "1"}}',
        b"\x00" * 100,
    ],
)
def test_a_damaged_configuration_is_no_way_in(
    board: Board, server: BundleServer, content: bytes
) -> None:
    url = server.publish_sample("sample-2.0")
    put(board, "conf1.json", json.dumps({"update": {"url": url, "interval": 5}}).encode())
    put(board, "conf9.json", content)
    board.call("Sys.Reboot")
    board.run(15)
    assert "config: DAMAGED: conf9.json: " in board.console
    assert "Signature check failed: the configuration is damaged: conf9.json" in board.console
    assert board.version == "1.0"
    for method in ("Sys.GetInfo", "OTA.Begin", "Config.Save"):
        with pytest.raises(RpcClientError, match="remove or rewrite the file") as caught:
            board.call(method)
        assert caught.value.code == 500
    board.call("FS.Remove", {"filename": "conf9.json"})
    board.call("Sys.Reboot")
    board.run_until(lambda: board.version == "2.0", timeout_s=30)
    assert board.call("Sys.GetInfo")


def test_an_access_rule_holds_whatever_else_is_in_the_file(board: Board) -> None:
    rules = json.dumps([{"method": "*", "acl": "-*"}])
    config = {"wifi": {"ssid": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}, "rpc": {"acl": rules}}
    text = json.dumps(config, ensure_ascii=False)
    put(board, "conf9.json", b"\xef\xbb\xbf" + text.encode())
    board.reset()
    board.run(0.5)
    with pytest.raises(RpcClientError) as caught:
        board.call("Sys.GetInfo")
    assert caught.value.code == 403


def test_the_device_has_the_name_and_the_limits_that_are_configured(board: Board) -> None:
    configure(board, device__id="lab-7", rpc__max_frame_size=512)
    board.reset()
    board.run(0.5)
    board.outputs.append((received := bytearray()).extend)
    board.send(
        b'{"id":1,"method":"RPC.Ping"}\n{"id":2,"method":"RPC.Ping","a":"%s"}\n' % (b"x" * 600)
    )
    board.run(0.5)
    assert b'"src":"lab-7"' in received
    assert b'"id":2' not in received
    assert b"longer than 512 bytes" in received


def test_the_watchdog_bites_when_it_is_configured_to(board: Board) -> None:
    configure(board, sys__wdt_timeout=25)
    board.reset()
    board.run(0.5)
    started_ns = board.machine.clock.now_ns
    board.type("hang\n")
    board.run(30)
    reset = board.trace.of_kind("reset")[-1]
    assert reset.details["cause"] == "watchdog"
    assert 24 < (reset.at_ns - started_ns) / 1e9 < 26


def test_the_log_can_be_silenced(board: Board) -> None:
    board.call("Sys.SetDebug", {"level": -1})
    board.call("OTA.Begin")
    assert "ota: update from" not in board.console
    board.reset()
    board.run(0.5)
    board.call("OTA.Begin")
    assert "ota: update from" in board.console


def test_settings_survive_a_reset_only_when_saved(board: Board) -> None:
    board.call("Config.Set", {"key": "device.id", "value": "a"})
    board.call("Config.Set", {"key": "debug.level", "value": 3})
    board.reset()
    board.run(0.5)
    assert board.call("Config.Get", {"key": "device.id"}) == "otasim"
    board.call("Config.Set", {"key": "device.id", "value": "a"})
    board.call("Config.Save", {"reboot": True})
    board.run(2)
    assert board.call("Config.Get", {"key": "device.id"}) == "a"
    assert board.call("FS.List") == ["conf9.json"]


class _Https:
    """A server with a certificate of its own."""

    def __init__(self, folder: Path, content: bytes) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .sign(key, SHA256())
        )
        self.certificate = certificate.public_bytes(Encoding.PEM)
        pem = folder / "server.pem"
        pem.write_bytes(
            self.certificate
            + key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )

        https = self
        self.redirect: str | None = None

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if https.redirect is not None:
                    self.send_response(302)
                    self.send_header("Location", https.redirect)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Requests are no news."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/fw.zip"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_downloads_verify_the_server(board: Board, tmp_path: Path) -> None:
    https = _Https(tmp_path, bundle_of("sample-2.0"))
    try:
        with pytest.raises(RpcClientError, match=r"TLS failed.*certificate verify failed"):
            board.call("OTA.Update", {"url": https.url})
        configure(board, update__ssl_ca_file="ca.pem")
        with pytest.raises(RpcClientError, match=r"no file ca\.pem"):
            board.call("OTA.Update", {"url": https.url})
        put(board, "ca.pem", b"")
        with pytest.raises(RpcClientError, match="no PEM certificates"):
            board.call("OTA.Update", {"url": https.url})
        put(board, "ca.pem", b"no certificate")
        with pytest.raises(RpcClientError, match="no PEM certificates"):
            board.call("OTA.Update", {"url": https.url})
        put(board, "ca.pem", https.certificate)
        https.redirect = "http://127.0.0.1:1/fw.zip"
        with pytest.raises(RpcClientError, match="from https to http"):
            board.call("OTA.Update", {"url": https.url})
        https.redirect = None
        board.call("OTA.Update", {"url": https.url})
        board.run_until(lambda: board.version == "2.0")
    finally:
        https.close()

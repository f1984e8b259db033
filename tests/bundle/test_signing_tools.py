"""Signing on the command line, and with the tools that others have: `mos` and `openssl`."""

import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import firmware
from rpc_shim.bundle.check import BundleReport, check_bundle
from rpc_shim.bundle.key_file import (
    KeyFileError,
    create_key_file,
    load_signing_key,
    load_verification_key,
)
from rpc_shim.bundle.signature import SignaturePolicy, format_public_key
from tests.bundle.signing import KEYS, SETTINGS
from tests.cli.command import otasim
from tests.rpc.mos import mos_environment, needs_mos

MosSigner = Callable[..., None]

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the tool `openssl` is not installed"
)


def run(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        list(map(str, arguments)),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )


def otasim_bundle(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output and errors of `otasim bundle`."""
    done = otasim("bundle", *arguments)
    return done.returncode, done.stdout, done.stderr


def make(output: Path, *sign_keys: str | Path) -> Path:
    options = [word for key in sign_keys for word in ("--sign-key", key)]
    image = firmware.path("sample-2.0")
    assert otasim_bundle("create", output, "--app", image, *options)[0] == 0
    return output


def write_key(path: Path, number: int) -> Path:
    pem = KEYS[number].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    path.write_bytes(pem)
    return path


def signers(report: BundleReport, *settings: str) -> tuple[int, ...]:
    """The keys that have signed, by what a device with these keys says."""
    assert report.ok, report.findings
    assert report.manifest is not None
    policy = SignaturePolicy(settings)
    return policy.check(report.manifest, report.manifest_text, report.signatures)


# -- the command line -----------------------------------------------------------------------------


def test_a_key_is_made_shown_and_signs(tmp_path: Path) -> None:
    key_file, setting_file = tmp_path / "key.pem", tmp_path / "key0.txt"
    code, setting, errors = otasim_bundle("keygen", key_file)
    assert (code, errors) == (0, "")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_file.read_text().startswith("-----BEGIN EC PRIVATE KEY-----")
    setting_file.write_text(setting)
    bundle = make(tmp_path / "fw.zip", key_file)
    assert signers(check_bundle(bundle), setting.strip()) == (0,)
    code, output, _ = otasim_bundle("check", bundle, "--key", setting_file)
    assert (code, output) == (0, f"sig0: good, made with {setting_file}\n{bundle}: good\n")


def test_a_key_never_overwrites_anything(tmp_path: Path) -> None:
    there, link, target = tmp_path / "there", tmp_path / "link", tmp_path / "target"
    there.write_text("mine")
    link.symlink_to(target)
    for path in (there, link, tmp_path):
        code, output, errors = otasim_bundle("keygen", path)
        assert (code, output) == (1, "")
        assert "is there already" in errors
    assert there.read_text() == "mine"
    assert not target.exists()
    code, _, errors = otasim_bundle("keygen", tmp_path / "no" / "folder")
    assert code == 1
    assert "cannot be written" in errors


def test_an_empty_sign_key_skips_a_place(tmp_path: Path) -> None:
    first, third = write_key(tmp_path / "a.pem", 0), write_key(tmp_path / "c.pem", 2)
    bundle = make(tmp_path / "fw.zip", first, "", third)
    assert signers(check_bundle(bundle), *SETTINGS) == (0, 2)
    code, output, _ = otasim_bundle("show", bundle)
    assert code == 0
    assert [line.split()[1] for line in output.splitlines() if "signature" in line] == [
        "sig0:",
        "sig2:",
    ]


def test_check_says_of_each_signature_whether_it_is_good(tmp_path: Path) -> None:
    a, b, c = (write_key(tmp_path / f"{name}.pem", n) for n, name in enumerate("abc"))
    bundle = make(tmp_path / "fw.zip", a, b)
    assert otasim_bundle("check", bundle)[:2] == (0, f"{bundle}: good\n")
    code, output, _ = otasim_bundle("check", bundle, "--key", b, "--key", a)
    assert code == 0
    assert output.splitlines()[:2] == [
        f"sig0: good, made with {a}",
        f"sig1: good, made with {b}",
    ]
    code, output, errors = otasim_bundle("check", bundle, "--key", a, "--key", c)
    assert code == 1
    assert output == f"sig0: good, made with {a}\nsig1: bad for all keys given\n"
    assert f"error: no good signature made with {c}" in errors
    assert otasim_bundle("check", make(tmp_path / "plain.zip"), "--key", a)[0] == 1


def test_check_finds_a_tampered_bundle(tmp_path: Path) -> None:
    key = write_key(tmp_path / "a.pem", 0)
    bundle = make(tmp_path / "fw.zip", key)
    content = bytearray(bundle.read_bytes())
    content[content.index(b'"sig0":"') + 20] ^= 1
    bundle.write_bytes(content)
    code, output, _ = otasim_bundle("check", bundle, "--key", key)
    assert (code, output) == (1, "sig0: bad for all keys given\n")


@pytest.mark.parametrize(
    "arguments", [["--key", "/nowhere"], ["--key", "/dev/null"], ["--key", __file__]]
)
def test_check_with_what_is_no_key_fails(tmp_path: Path, arguments: list[str]) -> None:
    assert otasim_bundle("check", make(tmp_path / "fw.zip"), *arguments)[0] in {1, 2}


# -- key files ------------------------------------------------------------------------------------


def test_every_kind_of_key_file_gives_the_same_key(tmp_path: Path) -> None:
    key = KEYS[0]
    public = key.public_key()
    private = key.private_bytes
    for number, content in enumerate(
        [
            private(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            private(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            SETTINGS[0].encode(),
            SETTINGS[0][:64].encode() + b"\n" + SETTINGS[0][64:].encode() + b"\n",
        ]
    ):
        path = tmp_path / str(number)
        path.write_bytes(content)
        assert load_verification_key(path) == public
        if b"PRIVATE" in content:
            assert load_signing_key(path).private_numbers() == key.private_numbers()
        else:
            with pytest.raises(KeyFileError, match="expected a private key in PEM"):
                load_signing_key(path)


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> bytes:
    return key.private_bytes(
        Encoding.PEM,
        PrivateFormat.TraditionalOpenSSL,
        BestAvailableEncryption(password) if password else NoEncryption(),
    )


RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a"),
        (b"\xff\x00" * 200, "expected a"),
        (b"-----BEGIN EC PRIVATE KEY-----\n", "expected a private key in PEM"),
        (pem(KEYS[0])[:-100], "expected a private key in PEM"),
        (pem(KEYS[0], b"secret"), "is encrypted: decrypt it"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (pem(RSA), "P-256"),
    ],
    ids=["empty", "noise", "head alone", "cut", "encrypted", "P-384", "RSA"],
)
def test_a_file_that_is_no_key_is_an_error_that_names_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "the.pem"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"the\.pem: .*expected a|the\.pem: is encrypted"):
        load_signing_key(path)
    with pytest.raises(KeyFileError, match=words) as caught:
        load_verification_key(path)
    assert caught.value.path == path


def test_a_public_key_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rsa.pem"
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(public)
    with pytest.raises(KeyFileError, match="P-256"):
        load_verification_key(path)
    path.write_bytes(public.replace(b"M", b"N", 1))
    with pytest.raises(KeyFileError, match=r"rsa\.pem"):
        load_verification_key(path)


def test_a_directory_or_nothing_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        for load in (load_signing_key, load_verification_key):
            with pytest.raises(KeyFileError, match="cannot be read"):
                load(path)


# -- other tools ----------------------------------------------------------------------------------


@pytest.fixture
def mos(tmp_path: Path) -> MosSigner:
    """Runs `mos create-fw-bundle`."""
    environment = mos_environment(tmp_path)

    def sign(source: Path, output: Path, *options: str | Path) -> None:
        command = ("mos", "create-fw-bundle", "-i", source, "-o", output, *options)
        done = run(*command, environment=environment)
        assert done.returncode == 0, done.stderr

    return sign


@needs_mos
def test_what_mos_signs_is_good_here(tmp_path: Path, mos: MosSigner) -> None:
    made_here = tmp_path / "first.pem"
    first = format_public_key(create_key_file(made_here).public_key())
    third = write_key(tmp_path / "third.pem", 2)
    source, output = make(tmp_path / "source.zip"), tmp_path / "signed.zip"
    mos(
        source, output, "--sign-key", made_here, "--sign-key", "", "--sign-key", third,
        "--extra-attr", "note=1", "--extra-attr", "who=me",
    )  # fmt: skip
    report = check_bundle(output)
    assert signers(report, first, SETTINGS[1], SETTINGS[2]) == (0, 2)
    assert signers(report, *SETTINGS) == (2,)
    assert otasim_bundle("check", output, "--key", made_here, "--key", third)[0] == 0


@needs_mos
def test_what_is_signed_here_is_read_and_signed_again_by_mos(
    tmp_path: Path, mos: MosSigner
) -> None:
    key, other = write_key(tmp_path / "a.pem", 0), write_key(tmp_path / "b.pem", 1)
    output = tmp_path / "again.zip"
    mos(make(tmp_path / "signed.zip", key), output, "--sign-key", other)
    assert signers(check_bundle(output), SETTINGS[1]) == (0,)


@needs_mos
def test_what_mos_does_not_sign_has_no_signatures(tmp_path: Path, mos: MosSigner) -> None:
    output = tmp_path / "plain.zip"
    signed = make(tmp_path / "signed.zip", write_key(tmp_path / "a.pem", 0))
    mos(signed, output, "--extra-attr", "note=1")
    assert check_bundle(output).signatures == {}


def openssl(*arguments: str | Path) -> bytes:
    done = run("openssl", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_openssl
@pytest.mark.parametrize(
    "command",
    [
        ["ecparam", "-name", "prime256v1", "-genkey", "-out"],
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"],
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"],
    ],
    ids=["with parameters", "key alone", "PKCS#8"],
)
def test_keys_of_openssl_sign_and_openssl_verifies(tmp_path: Path, command: list[str]) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    openssl(*command, key)
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    report = check_bundle(make(tmp_path / "fw.zip", key))
    assert report.signed_with(load_verification_key(key)) == (0,)
    assert report.signed_with(load_verification_key(public)) == (0,)
    signature, manifest = tmp_path / "signature", tmp_path / "manifest.json"
    signature.write_bytes(report.signatures[0])
    manifest.write_bytes(report.manifest_text)
    verified = openssl("dgst", "-sha256", "-verify", public, "-signature", signature, manifest)
    assert verified == b"Verified OK\n"


@needs_openssl
def test_openssl_reads_the_key_that_is_made_here(tmp_path: Path) -> None:
    key, der = tmp_path / "key.pem", tmp_path / "key.der"
    _, setting, _ = otasim_bundle("keygen", key)
    openssl("ec", "-in", key, "-check", "-pubout", "-outform", "DER", "-out", der)
    assert openssl("base64", "-A", "-in", der).decode() == setting.strip()

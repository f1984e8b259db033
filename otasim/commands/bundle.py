"""`otasim bundle`: makes, signs, shows and checks firmware bundles."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import click

from bootloader_model.app_info import read_app_info
from otasim.cli import EXIT_FAILED
from platforms.atomic_file import write_atomically
from platforms.errors import OtasimError
from rpc_shim.bundle.check import BundleReport, check_bundle
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.fs_image import files_below, make_fs_image
from rpc_shim.bundle.image_file import load_image
from rpc_shim.bundle.key_file import create_key_file, load_signing_key, load_verification_key
from rpc_shim.bundle.signature import format_public_key

_DEFAULT_TIMESTAMP = datetime(2026, 1, 1, tzinfo=UTC)


class _RegularFile(click.Path):
    """A file that can be read to its end: reading a pipe or a device might never end."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, dir_okay=False, readable=True)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        path = Path(str(super().convert(value, param, ctx)))
        if not path.is_file():
            self.fail(f"{path} is not a regular file", param, ctx)
        return path


_FILE = _RegularFile()


class _Address(click.ParamType[int]):
    """A number, hexadecimal with 0x."""

    name = "ADDRESS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return int(str(value), 0)
        except ValueError:
            self.fail(f"expected an address such as 0x08010000, got {value!r}", param, ctx)


class OutputError(OtasimError):
    """A file cannot be written.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be written: {error.strerror}")
        self.path = path


@click.group()
def bundle() -> None:
    """Make, sign, show or check a firmware bundle (.zip) for an STM32."""


@bundle.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--app", required=True, type=_FILE, help="The application: .hex, .elf or .bin.")
@click.option("--base", type=_Address(), metavar="ADDRESS", help="Where a .bin goes.")
@click.option("--name", help="Name of the firmware; without it, what the image says of itself.")
@click.option("--version", help="Its version; without it, what the image says of itself.")
@click.option("--build-id", help="What tells two builds of a version apart.")
@click.option("--description", default="", help="One line for people.")
@click.option(
    "--build-timestamp", type=click.DateTime(), metavar="TIME",
    help="When it was built, UTC; a fixed time without it, so that equal input gives equal files.",
)  # fmt: skip
@click.option("--device-layout", is_flag=True, help="With the room that real devices have before "
              "the application (64 KB).")  # fmt: skip
@click.option("--fs", "files", type=click.Path(path_type=Path, exists=True, file_okay=False),
              metavar="DIR", help="Files for the device's file system.")  # fmt: skip
@click.option(
    "--sign-key", "sign_keys", multiple=True, metavar="FILE",
    help="Private key (PEM) to sign with; again for the device's next key. '' skips a key.",
)  # fmt: skip
def create(  # noqa: PLR0913, PLR0917 - one parameter for each option
    output: Path,
    app: Path,
    base: int | None,
    name: str | None,
    version: str | None,
    build_id: str | None,
    description: str,
    build_timestamp: datetime | None,
    device_layout: bool,
    files: Path | None,
    sign_keys: tuple[str, ...],
) -> None:
    """Make the bundle OUTPUT from an application image."""
    signing_keys = [load_signing_key(Path(file)) if file else None for file in sign_keys]
    image = load_image(app, base=base)
    info = read_app_info(image.data)
    name = name or (info.name if info else None)
    version = version or (info.version if info else None)
    if name is None or version is None:
        raise click.UsageError(
            f"{app} does not say what it is: give --name and --version (firmware/README.md "
            "documents the descriptor that does)"
        )
    content = create_bundle(
        image,
        name=name,
        version=version,
        build_id=build_id or (info.build_id if info else version),
        build_timestamp=(build_timestamp or _DEFAULT_TIMESTAMP).replace(tzinfo=UTC),
        description=description,
        device_layout=device_layout,
        fs=None if files is None else make_fs_image(files_below(files)),
        signing_keys=signing_keys,
    )
    try:
        write_atomically(output, content)
    except OSError as error:
        raise OutputError(output, error) from error
    click.echo(f"{output}: {name} {version}, {len(content):,} bytes")
    for finding in check_bundle(output).errors:
        click.echo(f"warning: {finding.message}", err=True)


@bundle.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it is.")
def show(file: Path, as_json: bool) -> None:
    """Show what the bundle FILE holds; exit code 1 when something is wrong with it."""
    report = check_bundle(file)
    manifest = report.manifest
    if manifest is None:
        _print_findings(report)
        raise SystemExit(EXIT_FAILED)
    if as_json:
        click.echo(json.dumps(manifest.to_json(), indent=2))
        return
    click.echo(f"{manifest.title} for {manifest.platform}")
    for part in manifest.parts.values():
        click.echo(f"  part {part.name}: {part.src}, type {part.type}")
    for entry in report.files:
        click.echo(f"  file {entry.path}: {entry.size:,} bytes")
    for number, signature in report.signatures.items():
        click.echo(f"  signature sig{number}: {len(signature)} bytes")
    if report.application is not None:
        application = report.application
        click.echo(
            f"  application: {len(application.data):,} bytes for 0x{application.address:08x}"
        )
    _print_findings(report)
    if not report.ok:
        raise SystemExit(EXIT_FAILED)


@bundle.command()
@click.argument("file", type=_FILE)
@click.option(
    "--key", "key_files", multiple=True, type=_FILE, metavar="KEY",
    help="A key that must have signed: PEM, or the text of update.keyN. May be repeated.",
)  # fmt: skip
def check(file: Path, key_files: tuple[Path, ...]) -> None:
    """Check the bundle FILE as a device and as host tools read it."""
    keys = {key_file: load_verification_key(key_file) for key_file in key_files}
    report = check_bundle(file)
    _print_findings(report)
    signed = {key_file: report.signed_with(key) for key_file, key in keys.items()}
    if keys:
        for number in report.signatures:
            makers = [str(key_file) for key_file in signed if number in signed[key_file]]
            verdict = f"good, made with {', '.join(makers)}" if makers else "bad for all keys given"
            click.echo(f"sig{number}: {verdict}")
    for key_file, numbers in signed.items():
        if not numbers:
            click.echo(f"error: no good signature made with {key_file}", err=True)
    if not report.ok or not all(signed.values()):
        raise SystemExit(EXIT_FAILED)
    click.echo(f"{file}: good")


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Make a key that signs bundles, in the new FILE (PEM); print what a device's update.key0 is.

    FILE is for you alone, and signs with `otasim bundle create --sign-key FILE` as well as with
    `mos create-fw-bundle --sign-key FILE`.
    """
    key = create_key_file(file)
    click.echo(format_public_key(key.public_key()))


def _print_findings(report: BundleReport) -> None:
    for finding in report.findings:
        click.echo(f"{finding.severity.value}: {finding.message}", err=True)

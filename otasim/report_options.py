"""The options of `otasim campaign` that write reports to files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

import click

from campaign.reports.html import html_page
from campaign.reports.json_lines import json_lines
from campaign.reports.junit import junit_xml
from campaign.reports.report import Report
from campaign.reports.sarif import sarif_log
from platforms.atomic_file import write_atomically
from platforms.errors import OtasimError

CommandT = TypeVar("CommandT", bound=Callable[..., object])

_FILES = "otasim.report_options.files"
"""Where click's context keeps which reports were asked for: path by option."""
_STANDARD_OUTPUT = Path("-")
EXIT_UNDONE = 4
"""The campaign could not be carried out to its end, or a report of it not be written."""

_WRITERS: Mapping[str, tuple[Callable[[Report], bytes], str]] = {
    "html": (
        lambda report: html_page(report).encode(),
        "Write one page with pictures, for people.",
    ),
    "sarif": (lambda report: sarif_log(report).encode(), "Write SARIF 2.1.0, for code scanning."),
    "junit": (junit_xml, "Write JUnit XML, for CI."),
    "json-lines": (
        lambda report: json_lines(report).encode(),
        "Write findings and results, one JSON object a line.",
    ),
}


class ReportFileError(OtasimError):
    """A report cannot be written.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"the report {path} cannot be written: {error.strerror or error}")
        self.path = path


class _ReportFile(click.ParamType[Path]):
    """A file that can be written when the campaign is over, as far as can be told before."""

    name = "FILE|-"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        path = Path(str(value))
        if path == _STANDARD_OUTPUT:
            return path
        if path.exists() and not path.is_file():
            self.fail(f"{path} is there, and no regular file", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no directory {path.parent} for {path.name}", param, ctx)
        try:
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            problem = error.strerror or error
            self.fail(f"nothing can be written in {path.parent}: {problem}", param, ctx)
        return path


def report_options(command: CommandT) -> CommandT:
    """Adds `--json-lines`, `--junit`, `--sarif` and `--html`, which `write_reports` obeys.

    One of them may be `-`, standard output; lines for people then go to standard error.
    """
    for name, (_, what) in _WRITERS.items():
        command = click.option(
            f"--{name}", type=_ReportFile(), expose_value=False, callback=_remember, help=what
        )(command)
    return command


def _remember(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    asked = context.meta.setdefault(_FILES, {})
    if path in asked.values():
        raise click.BadParameter(f"another report goes to {path}", context, parameter)
    asked[parameter.opts[0].removeprefix("--")] = path


def reports() -> Mapping[str, Path]:
    """Which reports were asked for: path by option."""
    files: Mapping[str, Path] = click.get_current_context().meta.get(_FILES, {})
    return files


def remove_old_reports() -> None:
    """Remove what an earlier campaign wrote: a killed one must not seem to have said that."""
    for path in reports().values():
        if path != _STANDARD_OUTPUT:
            path.unlink(missing_ok=True)


def tell(line: str) -> None:
    """A line for people: to standard output, or standard error where a report goes there."""
    click.echo(line, err=_STANDARD_OUTPUT in reports().values())


def write_reports(report: Report) -> list[ReportFileError]:
    """Write what was asked for; returns what is wrong with those that cannot be written."""
    errors = []
    for name, path in reports().items():
        content = _WRITERS[name][0](report)
        try:
            if path == _STANDARD_OUTPUT:
                click.echo(content, nl=False)
            else:
                write_atomically(path, content)
        except OSError as error:
            errors.append(ReportFileError(path, error))
    return errors

"""The README's Python examples, run as they stand there."""

import re
from pathlib import Path

import pytest

from otasim.bundle_server import BundleServer

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLES = BLOCK.findall(README.read_text(encoding="utf-8"))
TESTS = {
    name: code for code in EXAMPLES for name in re.findall(r"^def (test_\w+)\(", code, re.MULTILINE)
}


def test_the_readme_has_examples() -> None:
    assert len(TESTS) >= 2


@pytest.mark.parametrize("name", TESTS)
def test_an_example_does_what_it_says(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(TESTS[name], str(README), "exec"), namespace)  # noqa: S102 - our own README
    example = namespace[name]
    assert callable(example)
    with BundleServer() as server:
        example(server.publish_sample("sample-2.0"))

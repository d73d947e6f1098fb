"""What the tests of `rwkvgraph inspect` share: running it in this process, and small random models."""

import json
from typing import Any

import pytest

from rwkvgraph.cli import main
from rwkvgraph.op import Array
from tests.rwkvgraph.models.synthetic import synthetic

CPU = ["--adapter", "cpu"]
PROMPT = "The cat sat on the mat."
TOKENS = 9
WIDE = 48
"""Channels of the random models; not a multiple of 32, so that rows on the device are padded."""

VERSIONS = ("v4", "v5.0", "v5.2", "v6", "v7")
CUT = 1e-4
"""Relative, of float32 values whose matrices are multiplied for other numbers of tokens at once."""


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rwkvgraph inspect` in this process; of PROMPT, unless -p is given."""
    prompt = [] if "-p" in arguments else ["-p", PROMPT]
    code = main(["inspect", *prompt, *arguments])
    return code, *capsys.readouterr()


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What --json writes."""
    code, out, _ = inspect(capsys, "--json", *arguments)
    assert code == 0
    data: dict[str, Any] = json.loads(out)
    return data


def small(version: str, **more: Any) -> dict[str, Array]:
    """A random model of four layers for the small vocabulary."""
    sizes: dict[str, Any] = {} if version == "v4" else {"head_size": 16}
    if version in ("v6", "v7"):
        sizes["low_rank"] = (8, 12) if version == "v6" else (8, 8, 8, 12)
    return dict(synthetic(version, 4, WIDE, vocab=4096, **sizes, **more))


def rows_of(out: str) -> dict[str, list[str]]:
    """The columns of a table's lines by their first."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if "@" in line}

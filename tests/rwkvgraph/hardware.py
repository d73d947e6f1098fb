"""Whatever device there is, taken for a GPU: what is made for those runs on software as well."""

from dataclasses import replace
from typing import Any

from rwkvgraph.compiler import Target


def hardware(target: Target, **changes: Any) -> Target:
    """A target as one of a GPU that has no relays, with these fields. Lanes of software are unknown."""
    lanes = target.lanes if target.kind == "gpu" else 0
    return replace(target, **{"kind": "gpu", "lanes": lanes, "resident": 0, **changes})

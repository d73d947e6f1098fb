"""The lines in which WGSL front ends differ, as data.

Everything else the generators write lies in the intersection of naga (native) and Tint (browsers).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dialect:
    """One WGSL front end.

    subgroup_header: what a module that calls subgroup functions starts with: "" or a whole line, newline
    included. Modules without subgroup calls leave it out. apart: the same of one that calls them where only
    the threads of a subgroup are together, not all of a workgroup's, which no front end can see.
    """

    name: str
    subgroup_header: str
    apart: str = field(repr=False)


NAGA = Dialect("naga", "", "")
"""naga 29 (wgpu-native): refuses `enable subgroups;` as not yet supported; gfx-rs/wgpu#8202 may change it."""

TINT = Dialect("tint", "enable subgroups;\n", "diagnostic(off, subgroup_uniformity);\n")
"""Tint (Dawn, Chromium): refuses any subgroup call in a module that lacks the line."""

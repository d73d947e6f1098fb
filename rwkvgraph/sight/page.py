"""One HTML page that shows a compilation: data and program in one file; it asks the network for nothing."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from rwkvgraph.sight.packing import pack
from rwkvgraph.sight.sections import Tables, Value, pass_sections, tape_sections
from rwkvgraph.sight.stages import STAGES, Stages
from rwkvgraph.sight.timing import Timing

SCRIPTS = ("data.js", "text.js", "tree.js", "panel.js", "search.js", "page.js")
NOTES = {
    "build": "the model's equations as written, with every hook site",
    "splice": "hooks have run: what they added is marked, sites are gone",
    "simplify": "copies and dead operations are gone",
    "fuse": "operations in the pass that runs them",
    "plan": "passes, and the memory that they share",
    "program": "passes with their shaders: what runs",
}


def page(stages: Stages, stage: str, tokens: int = 1, timing: Timing | None = None) -> str:
    """The page for a compilation up to a stage. Raises ValueError for a stage that there is not.

    tokens: of the run whose bytes are counted.
    """
    stages.value(stage)
    folder = files("rwkvgraph.sight") / "web"
    data = page_data(stages, stage, tokens, timing)
    script = "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS)
    found = (folder / "page.html").read_text("utf-8")
    for mark, text in {
        "title": f"{stages.subject.info.version} · rwkvgraph",
        "style": (folder / "page.css").read_text("utf-8"),
        "data": embedded(data),
        "script": script,
    }.items():
        found = found.replace(f"<!--{mark}-->", text, 1)
    return found


def embedded(data: Any) -> str:
    """JSON that may stand in a script element: nothing in it ends one."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def page_data(stages: Stages, stage: str, tokens: int, timing: Timing | None) -> Value:
    """All that the page shows, as plain values; what its sections have in common is there once."""
    tables = Tables()
    shown = [
        name for name in STAGES[: STAGES.index(stage) + 1] if name not in ("fuse", "plan") or name == stage
    ]
    views = [_view(stages, name, tables, tokens, timing) for name in shown]
    return {"about": _about(stages, tokens, timing), "stages": views, **tables.values()}


def _view(stages: Stages, name: str, tables: Tables, tokens: int, timing: Timing | None) -> Value:
    match name:
        case "build":
            sections = tape_sections(stages, stages.build, True, tables, tokens)
        case "splice":
            sections = tape_sections(stages, stages.splice, False, tables, tokens)
        case "simplify":
            sections = tape_sections(stages, stages.simplified.graph, False, tables, tokens)
        case _:
            times = timing.microseconds if timing else {}
            sections = pass_sections(stages, name, tables, tokens, times)
    return {"name": name, "note": NOTES[name], "sections": pack(sections)}


def _about(stages: Stages, tokens: int, timing: Timing | None) -> Value:
    info = stages.subject.info
    ranks = ", ".join(f"{name} {size}" for name, size in info.custom.items())
    sizes = {
        "layers": info.num_layer,
        "width": info.num_emb,
        "heads": info.num_head,
        "hidden": info.num_hidden,
        "vocabulary": info.num_vocab,
    }
    measured = timing and {
        "method": timing.method,
        "adapter": timing.adapter,
        "total": round(timing.total, 1),
    }
    return {
        "version": f"RWKV-{info.version[1:]}",
        "source": stages.subject.source.rpartition("/")[2],
        "sizes": [[name, size] for name, size in sizes.items()] + ([["ranks", ranks]] if ranks else []),
        "module": info.version.lower(),
        "target": str(stages.target),
        "tokens": tokens,
        "hooks": len(stages.hooks),
        "timing": measured,
    }

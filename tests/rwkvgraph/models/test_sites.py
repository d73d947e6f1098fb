"""Hook sites of every version: which there are, what is new at each, and that hooks there only add."""

import inspect
import re
from dataclasses import replace
from types import ModuleType

import pytest

from rwkvgraph import ops, v4, v5, v6, v7
from rwkvgraph.compiler import NAGA, Limits, Target, compile
from rwkvgraph.errors import HookError
from rwkvgraph.gpu import Context
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Hook, LayerHook
from rwkvgraph.hooks import HookFunction, Hooks
from rwkvgraph.model import Model
from rwkvgraph.models import sites
from rwkvgraph.op import DType
from rwkvgraph.splice import splice
from tests.rwkvgraph.models.small import LAYERS, tensors_of
from tests.rwkvgraph.models.synthetic import VERSIONS

MODULES: dict[str, ModuleType] = {"v4": v4, "v5": v5, "v6": v6, "v7": v7}
KINDS = {"v4": sites.V4, "v5": sites.V5, "v6": sites.V6, "v7": sites.V7}
COUNTS = {"v4": 26, "v5": 28, "v6": 38, "v7": 34}
ALL_KINDS = sorted({kind for kinds in KINDS.values() for kind in kinds}, key=lambda kind: kind.__name__)

# web-rwkv's table: every site in order of execution, the versions that have it, and the slots that are new.
# A version before a colon has what follows besides; att_sx and time_mix go by their parts' names.
TABLE = """
PostEmbedLoaded                 4567  cursors input
PostEmbedLayerNorm              4567  input x
PreAtt                          4567  att_x
PostAttLayerNorm                4567  att_x
PreAttTokenShift                4567
PostAttTokenShift               4567  457:att_kx 457:att_vx 457:att_rx 57:att_gx 7:att_wx 7:att_ax 6:att_xx
PreAttTokenShiftAdapt           6
PostAttTokenShiftAdaptActivate  6     time_mix_x
PostAttTokenShiftAdapt          6     time_mix_w time_mix_k time_mix_v time_mix_r time_mix_g
PreAttGatedTokenShift           6     time_mix_w time_mix_k time_mix_v time_mix_r time_mix_g
PostAttGatedTokenShift          6     att_wx att_kx att_vx att_rx att_gx
PreAttLinear                    4567
PostAttLinear                   4567  att_k att_v att_r 56:att_g
PreAttTimeDecayAdapt            6
PostAttTimeDecayAdaptActivate   6     att_w
PostAttTimeDecayAdapt           6     time_decay
PreAttTimeDecayActivate         6     time_decay
PostAttTimeDecayActivate        6     time_decay
PreAttAdapt                     7
PostAttAdapt                    7     att_w att_a att_g aux_w aux_a aux_g
PreAttControl                   7
PostAttControl                  7     att_kk att_k
PreAttValueResidual             7
PostAttValueResidual            7     att_v0 aux_v att_vv att_v
PreAttTimeMix                   4567
PostAttTimeMix                  4567  att_x
PreAttGate                      567
PostAttGate                     567   att_x
PreAttOut                       4567
PostAttOut                      4567  att_o
PostAtt                         4567  x
PreFfn                          4567  ffn_x
PostFfnLayerNorm                4567  ffn_x
PreFfnTokenShift                4567
PostFfnTokenShift               4567  ffn_kx 456:ffn_rx
PreFfnLinear                    4567
PostFfnActivate                 4567  ffn_k
PostFfnLinear                   4567  ffn_v 456:ffn_r
PreFfnChannelMix                4567
PostFfnChannelMix               4567  ffn_x
PostFfn                         4567  x
PreHead                         4567  head_x
PostHeadLayerNorm               4567  head_x
PostHead                        4567  head_o
"""


def table(major: str) -> dict[str, list[str]]:
    """The slots that are new at each site of a version, in its order."""
    found = {}
    for line in TABLE.strip().splitlines():
        name, versions, *slots = line.split()
        if major[1] in versions:
            pairs = [slot.rpartition(":") for slot in slots]
            found[name] = [slot for which, _, slot in pairs if not which or major[1] in which]
    return found


def new_slots(version: str, hook: Hook) -> set[str]:
    """What the table says of a site of a model."""
    slots = set(table(version[:2])[type(hook).__name__])
    if version == "v5.0":
        slots -= {"att_g", "att_gx"}
        return slots - {"att_x"} if isinstance(hook, sites.PostAttGate) else slots
    if isinstance(hook, sites.PostAttValueResidual):
        slots -= {"att_v0"} if hook.layer else {"aux_v", "att_vv", "att_v"}
    return slots


def build(version: str) -> Graph:
    return Model.load(tensors_of(version), "cpu").graph


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def graph(version: str) -> Graph:
    return build(version)


def test_a_graph_has_the_sites_of_its_version_in_their_order(version: str, graph: Graph) -> None:
    kinds = KINDS[version[:2]]
    inside = [kind for kind in kinds if issubclass(kind, LayerHook)]
    wanted: list[Hook] = [kind() for kind in kinds[:2]]
    wanted += [kind(layer) for layer in range(LAYERS) for kind in inside]
    wanted += [kind() for kind in kinds[-3:]]
    assert [site.hook for site in graph.sites()] == wanted
    assert len(kinds) == len(inside) + 5 == len(set(kinds)) == COUNTS[version[:2]]


def test_the_sites_are_web_rwkvs(version: str) -> None:
    assert [kind.__name__ for kind in KINDS[version[:2]]] == list(table(version[:2]))


@pytest.mark.parametrize("major", MODULES)
def test_a_version_exports_its_sites_and_its_frame_and_nothing_else(major: str) -> None:
    public = {name: value for name, value in vars(MODULES[major]).items() if not name.startswith("_")}
    frame = public.pop("Frame")
    assert public == {kind.__name__: kind for kind in KINDS[major]}
    assert {type(site.frame) for site in build(major if major != "v5" else "v5.2").sites()} == {frame}


def test_what_is_new_at_a_site_is_what_web_rwkv_has_made_valid_there(version: str, graph: Graph) -> None:
    before: dict[str, object] = {}
    for site in graph.sites():
        new = {name for name, tensor in site.slots.items() if tensor is not before.get(name)}
        assert new == new_slots(version, site.hook), site.hook
        before = dict(site.slots)


def test_what_was_valid_stays_valid_until_the_layer_ends(version: str, graph: Graph) -> None:
    valid: set[str] = set()
    for site in graph.sites():
        if isinstance(site.hook, (sites.PreAtt, sites.PreHead)):
            kept = {"att_v0"} if version == "v7" and isinstance(site.hook, sites.PreAtt) else set()
            valid &= {"cursors", "x", *kept}
        valid |= new_slots(version, site.hook)
        assert set(site.slots) == valid, site.hook
        for name, tensor in site.slots.items():
            assert tensor.shape == site.frame.shape_of(name)


def test_every_slot_of_a_frame_is_set_somewhere(version: str, graph: Graph) -> None:
    found = {name for site in graph.sites() for name in site.slots}
    unset = {"att_g", "att_gx"} if version == "v5.0" else set()
    assert set(type(graph.sites()[0].frame).slots) == found | unset


def test_a_sites_docstring_names_what_is_new_there(graph: Graph, version: str) -> None:
    for kind in KINDS[version[:2]]:
        text = inspect.getdoc(kind) or ""
        for slot in table(version[:2])[kind.__name__]:
            same = re.search(r"[Aa]s (\w+)", text)
            assert slot in text or slot == "cursors" or same or "the same" in text, (kind.__name__, slot)


@pytest.mark.parametrize("major", MODULES)
def test_a_site_that_a_version_lacks_lists_the_nearest_that_it_has(major: str) -> None:
    graph = build(major if major != "v5" else "v5.2")
    there = {kind.__name__ for kind in KINDS[major]}
    for kind in ALL_KINDS:
        if kind in KINDS[major]:
            continue
        for place in (kind, kind(1)):  # type: ignore[call-arg]  # sites that a version lacks are of layers
            with pytest.raises(HookError) as caught:
                splice(graph, Hooks({place: lambda frame: None}))
            name, _, near = (
                str(caught.value).removeprefix("the model has no hook site ").partition("; nearest: ")
            )
            assert name == (kind.__name__ if place is kind else f"{kind.__name__}(1)")
            listed = near.split(", ")
            assert {item.partition("(")[0] for item in listed} <= there
            assert len(listed) <= 3 or set(listed) == there  # where none is near, all


def test_hooks_of_another_versions_module_are_the_same_sites(graph: Graph) -> None:
    seen: list[int] = []
    assert v4.PostFfn is v5.PostFfn is v6.PostFfn is v7.PostFfn
    splice(graph, Hooks({v7.PostFfn: lambda frame, layer: seen.append(layer)}))
    assert seen == list(range(LAYERS))


TARGETS = {
    "browser": Target.browser(),
    "browser with subgroups": Target.browser(subgroups=True),
    "GPU": Target(Limits.webgpu_default(), NAGA, True, "gpu"),
    "GPU that binds more": Target(
        replace(Limits.webgpu_default(), max_storage_buffers=32), NAGA, True, "gpu"
    ),
    "software": Target(Limits.webgpu_default(), NAGA, True, "cpu", lanes=8),
    "narrow software": Target(Limits.webgpu_default(), NAGA, False, "cpu", lanes=4),
}


def check_same_program(graph: Graph, hooks: Hooks, target: Target) -> None:
    """Fail unless the program with these hooks is, to the byte, that of a graph without sites."""
    bare, hooked = compile(Graph(graph.ops), None, target), compile(graph, hooks, target)
    assert str(hooked) == str(bare)
    for a, b in zip(hooked.passes, bare.passes, strict=True):
        assert (a.rows, a.needs) == (b.rows, b.needs)
        assert [one.source.text for one in a.variants] == [one.source.text for one in b.variants]
        assert [(one.table, one.grid, one.max_rows, one.is_one_each) for one in a.variants] == [
            (one.table, one.grid, one.max_rows, one.is_one_each) for one in b.variants
        ]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_sites_that_nothing_hooks_leave_every_shader_as_it_is(graph: Graph, target: Target) -> None:
    assert graph.sites()
    assert not Graph(graph.ops).sites()
    check_same_program(graph, Hooks(), target)


def test_sites_that_nothing_hooks_leave_every_shader_of_this_device_as_it_is(
    graph: Graph, gpu: Context
) -> None:
    check_same_program(graph, Hooks(), gpu.target)


def everywhere(version: str, function: HookFunction) -> Hooks:
    return Hooks(dict.fromkeys(KINDS[version[:2]], function))


def test_operations_that_nothing_reads_leave_every_shader_as_it_is(version: str, graph: Graph) -> None:
    def build_and_forget(frame: v4.Frame) -> None:
        for tensor in frame.values().values():
            if tensor.dtype is DType.F32:
                ops.tanh(tensor)

    check_same_program(graph, everywhere(version, build_and_forget), Target.browser())


def test_slots_that_are_replaced_by_themselves_leave_every_shader_as_it_is(
    version: str, graph: Graph
) -> None:
    def replace_all(frame: v4.Frame) -> None:
        for name, tensor in frame.values().items():
            if tensor.dtype is DType.F32:
                setattr(frame, name, ops.affine(tensor, 1.0, 0.0))

    check_same_program(graph, everywhere(version, replace_all), Target.browser())

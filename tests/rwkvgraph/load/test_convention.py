"""A model is presented in web-rwkv's names and shapes, in whichever convention it was saved."""

from pathlib import Path

import numpy as np
import pytest

from rwkvgraph.errors import LoadError
from rwkvgraph.load import open_model, open_tensors
from rwkvgraph.load.convention import renamed
from rwkvgraph.op import Array

DATA = Path(__file__).parent / "data"
VERSIONS = ["v4", "v5.0", "v5.1", "v5.2", "v6", "v7"]
C, H, S = 8, 2, 4
ATT = "blocks.0.att."


def arrays(path: Path) -> dict[str, Array]:
    """Every tensor of a file as it is there."""
    reader = open_tensors(path)
    return {name: reader.rows(name, 0, 1000).reshape(reader.shape(name)) for name in reader.names()}


def presented(source: dict[str, Array], names: str | None = None) -> dict[str, Array]:
    """Every tensor as a model is given it."""
    reader = open_model(source, names)
    found = {name: reader.rows(name, 0, 1000) for name in reader.names()}
    assert {name: reader.shape(name) for name in found} == {
        name: array.shape for name, array in found.items()
    }
    return found


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.fixture(params=VERSIONS)
def raw(request: pytest.FixtureRequest) -> dict[str, Array]:
    """A model of each version as BlinkDL's code saves it."""
    return arrays(DATA / f"{request.param}.pth")


def test_what_is_presented_once_is_presented_the_same_again(raw: dict[str, Array]) -> None:
    once = presented(raw)
    assert_same(presented(once), once)
    reader = open_model(raw)
    assert open_model(reader) is reader


def test_rows_are_those_of_what_is_presented(raw: dict[str, Array]) -> None:
    reader = open_model(raw)
    for name, array in presented(raw).items():
        for start in range(0, len(array), 3):
            np.testing.assert_array_equal(reader.rows(name, start, start + 3), array[start : start + 3])


def test_matrices_are_read_a_few_rows_at_a_time(
    raw: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = presented(raw)
    monkeypatch.setattr("rwkvgraph.load.convention.MOST_BYTES", 4 * C * 3)
    assert_same(presented(raw), whole)


@pytest.mark.parametrize("version", ["v4", "v5.0"])
def test_old_versions_have_the_same_names_before_and_after(version: str) -> None:
    raw = arrays(DATA / f"{version}.pth")
    assert_same(presented(raw), raw)


def test_a_number_a_head_becomes_one_a_channel() -> None:
    raw = arrays(DATA / "v5.1.pth")
    found = presented(raw)
    for old, new in (("time_decay", "time_decay"), ("time_faaaa", "time_first")):
        assert raw[ATT + old].shape == (H,)
        np.testing.assert_array_equal(found[ATT + new], np.repeat(raw[ATT + old][:, None], S, 1))


def test_a_column_of_numbers_a_head_becomes_one_a_channel_too() -> None:
    raw = arrays(DATA / "v5.1.pth")
    column = {name: value[:, None] if value.shape == (H,) else value for name, value in raw.items()}
    assert_same(presented(column), presented(raw))


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    raw = arrays(DATA / "v5.1.pth") | {ATT + "time_decay": np.zeros(3, np.float16)}
    with pytest.raises(LoadError, match="time_decay has 3 heads, which do not divide 8 channels"):
        open_model(raw)


def test_a_bonus_that_the_convention_cannot_express_is_refused() -> None:
    raw = arrays(DATA / "v5.0.pth")
    raw[ATT + "time_faaaa"] = raw.pop(ATT + "time_first")
    with pytest.raises(LoadError, match=r"time_faaaa in RWKV-5.0 .*can be neither run nor converted"):
        open_model(raw)


SIX = {"time_mix_w1": "time_maa_w1", "time_mix_w2": "time_maa_w2", "time_decay_w1": "", "time_decay_w2": ""}
LOW_RANK = {"v6": SIX, "v7": dict.fromkeys(("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"), "")}


@pytest.mark.parametrize("version", LOW_RANK)
def test_low_rank_matrices_and_no_others_are_transposed(version: str) -> None:
    raw = arrays(DATA / f"{version}.pth")
    swapped = {ATT + name for name in LOW_RANK[version]}
    expected = {
        new: np.ascontiguousarray(value.swapaxes(-1, -2)) if new in swapped else value
        for new, value in ((renamed(name), value) for name, value in raw.items())
    }
    assert sum(new in swapped for new in expected) == len(swapped)
    assert_same(presented(raw), expected)


@pytest.mark.parametrize("version", LOW_RANK)
def test_converted_names_with_matrices_that_were_not_transposed_are_read(version: str) -> None:
    raw = arrays(DATA / f"{version}.pth")
    assert_same(presented({renamed(name): value for name, value in raw.items()}), presented(raw))


@pytest.mark.parametrize("version", LOW_RANK)
def test_raw_names_with_matrices_that_were_transposed_are_read(version: str) -> None:
    raw = arrays(DATA / f"{version}.pth")
    expected = presented(raw)
    assert_same(presented({name: expected[renamed(name)] for name in raw}), expected)


def squared(tensors: dict[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    """The model with C as the rank of some matrices."""
    numbers = np.arange(C * C, dtype=np.float16).reshape(C, C)
    return tensors | {f"{ATT}{name}{which}": numbers + which for name in names for which in (1, 2)}


def test_a_square_matrix_follows_those_that_are_not() -> None:
    raw = squared(arrays(DATA / "v7.pth"), ("w",))
    converted = presented(raw)
    np.testing.assert_array_equal(converted[ATT + "w1"], raw[ATT + "w1"].T)
    assert_same(presented(converted), converted)


def test_a_square_matrix_follows_raw_names() -> None:
    raw = arrays(DATA / "v6.pth")
    raw = {name: value for name, value in raw.items() if "_w1" not in name and "_w2" not in name}
    square = np.arange(C * C, dtype=np.float32).reshape(C, C)
    found = presented(raw | {ATT + "time_decay_w1": square})
    np.testing.assert_array_equal(found[ATT + "time_decay_w1"], square.T)


def test_a_file_of_square_matrices_has_to_be_told_apart_by_whoever_has_it() -> None:
    raw = squared(arrays(DATA / "v7.pth"), ("w", "a", "v", "g"))
    message = r'att\.w1 has shape \(8, 8\).* choose: names="raw" or "converted" \(--names\)'
    with pytest.raises(LoadError, match=message):
        open_model(raw)
    assert_same(presented(raw, "converted"), raw)
    found = presented(raw, "raw")
    np.testing.assert_array_equal(found[ATT + "g2"], raw[ATT + "g2"].T)
    np.testing.assert_array_equal(found[ATT + "r_k"], raw[ATT + "r_k"])


@pytest.mark.parametrize("names", [None, "raw", "converted"])
def test_shapes_that_contradict_each_other_are_refused_where_some_are_square(names: str | None) -> None:
    raw = squared(arrays(DATA / "v7.pth"), ("w",))
    raw[ATT + "a1"] = raw[ATT + "a1"].T
    message = r"half raw, half converted: .*v1 \(8, 2\) .*a1 \(2, 8\) .*w1 \(8, 8\) may be either"
    with pytest.raises(LoadError, match=message):
        open_model(raw, names)


def six_of_ranks(mix: int, decay: int) -> dict[str, Array]:
    """Converted low-rank matrices of V6, and the width."""
    shapes = {
        "mix_w1": (5 * mix, 20),
        "mix_w2": (5, 20, mix),
        "decay_w1": (decay, 20),
        "decay_w2": (20, decay),
    }
    random = np.random.default_rng(0)
    found = {f"{ATT}time_{name}": random.normal(size=shape) for name, shape in shapes.items()}
    return {"emb.weight": np.zeros((3, 20)), **found}


@pytest.mark.parametrize(("mix", "decay"), [(4, 3), (2, 20), (20, 20), (20, 3)])
@pytest.mark.parametrize("names", [None, "raw", "converted"])
def test_shapes_tell_of_square_matrices_what_names_and_choices_do_not(
    mix: int, decay: int, names: str | None
) -> None:
    converted = six_of_ranks(mix, decay)
    expected = {name: array.astype(np.float32) for name, array in converted.items()}
    named_raw = {name.replace("time_mix", "time_maa"): array for name, array in converted.items()}
    assert_same(presented(converted, names), expected)
    assert_same(presented(named_raw, names), expected)
    raw = {name: array.swapaxes(-1, -2) if "time" in name else array for name, array in converted.items()}
    assert_same(presented(raw, names), expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_large_letters_do_not_matter(version: str) -> None:
    """As in web-rwkv's converter; the parts that are renamed are looked for first, as they are."""
    raw = presented(arrays(DATA / f"{version}.pth"))
    assert_same(presented({name.upper(): array for name, array in raw.items()}), raw)


PREFIXES = [
    "module.",
    "_orig_mod.",
    "_forward_module.",
    "model.",
    "_forward_module.model.",
    "module._orig_mod.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_wrappers_put_before_every_name_is_taken_off(raw: dict[str, Array], prefix: str) -> None:
    wrapped = {prefix + name: array for name, array in raw.items()}
    assert_same(presented(wrapped), presented(raw))
    with pytest.raises(LoadError, match="no tensor nothing"):
        open_model(wrapped).shape("nothing")


def test_a_prefix_that_not_all_names_have_or_of_another_model_stays() -> None:
    one = np.zeros(3, np.float16)
    for names in (["module.emb.weight", "head.weight"], ["model.embed_tokens.weight", "model.norm.weight"]):
        assert open_model(dict.fromkeys(names, one)).names() == names


def test_a_choice_does_not_overrule_shapes() -> None:
    raw = arrays(DATA / "v7.pth")
    assert_same(presented(raw, "converted"), presented(raw, "raw"))


def test_there_is_no_third_choice() -> None:
    with pytest.raises(ValueError, match="names is 'cooked'"):
        open_model({}, "cooked")


def test_two_names_for_one_tensor_are_refused() -> None:
    tensors = {name: np.zeros((H, S), np.float16) for name in (ATT + "time_faaaa", ATT + "time_first")}
    with pytest.raises(LoadError, match=r"time_faaaa and .*time_first would both be .*time_first"):
        open_model(tensors)


def test_a_tuned_state_is_raw_in_a_file_by_torch_and_open_in_others() -> None:
    state = arrays(DATA / "state.pth")
    ((name, value),) = state.items()
    np.testing.assert_array_equal(open_model(DATA / "state.pth").rows(name, 0, H), value.swapaxes(1, 2))
    with pytest.raises(LoadError, match=r"time_state has shape \(2, 4, 4\)"):
        open_model(state, with_states=True)


def test_a_tensor_that_is_missing_is_named() -> None:
    for source in (DATA / "v4.pth", {"x": np.zeros(3, np.float16)}):
        for reader in (open_tensors(source), open_model(source)):
            with pytest.raises(LoadError, match="no tensor y; it is needed"):
                reader.shape("y")
            with pytest.raises(LoadError, match="no tensor y; it is needed"):
                reader.rows("y", 0, 1)

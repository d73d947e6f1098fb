"""Loads ahead of everything: which can be, which cannot, and what the rest then uses."""

from rwkvgraph_codegen import Binding, Call, Load, Store, hold

X, Y = Binding(1, "f32", False, True), Binding(2, "f32", True, True)
WORDS = Binding(3, "u32", False, False)


def test_equal_loads_are_held_once_and_their_readers_use_them() -> None:
    first, again = Load("v0", X, "lane", "0"), Load("v2", X, "lane", "0")
    held = hold([first, Call("v1", "f", ("v0", "n")), again, Call("v3", "g", ("v2", "v1"))])
    assert [item.text() for item in held.lanes] == ["let held0 = load_b1_lane(here.at[0], i0, i1, i2);"]
    assert [item.text() for item in held.rest([Call("v3", "g", ("v2", "v1"))], "_lane1")] == [
        "let v3 = g(held0_lane1, v1);"
    ]
    assert (
        held.lane("lane1", "_lane1")[0].text() == "let held0_lane1 = load_b1_lane(here.at[0], i0, i1, lane1);"
    )


def test_a_row_that_words_tell_is_found_ahead_too() -> None:
    words, row = Load("v0", WORDS, "words", "1"), Call("v1", "row_of", ("i0", "v0"))
    held = hold([words, row, Load("v2", X, "lane", "2", row="v1")])
    assert [item.text() for item in held.common] == [
        "let held0 = load_b3_words(here.at[1], i0);",
        "let held1 = row_of(i0, held0);",
    ]
    assert held.lanes[0].row == "held1"
    assert held.fields == [("held0", "vec4<u32>"), ("held1", "u32"), ("held2", "V")]


def test_what_is_written_here_and_rows_that_lanes_tell_stay_where_they_are() -> None:
    written = Load("v0", Y, "lane", "0")
    told = Load("v2", X, "lane", "1", row="v1")
    statements: list[Load | Call | Store] = [
        written,
        Call("v1", "row_of", ("v0",)),
        told,
        Store(Y, "0", "v2", guard="is_mine && v1"),
    ]
    held = hold(statements)
    assert not held.common
    assert not held.lanes
    assert held.rest(statements) == statements

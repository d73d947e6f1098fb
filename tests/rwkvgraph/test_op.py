"""What operations take, and what they refuse."""

from dataclasses import dataclass

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph.op import tape
from rwkvgraph.ops.move import Blit


def buffer(*shape: int, dtype: rg.DType = rg.DType.F32) -> rg.Buffer:
    return rg.Buffer("given", shape, dtype)


def test_a_buffer_is_an_operand_like_its_tensor() -> None:
    x, y = buffer(3, 4), buffer(4)
    assert (x.tensor + y).shape == (3, 4)
    assert rg.lerp(x.tensor, x.tensor, y.tensor).shape == (3, 4)
    assert rg.blit(y, x).shape == (3, 4)


def test_a_number_where_a_tensor_belongs_is_refused_by_name() -> None:
    x = buffer(3, 4).tensor
    with pytest.raises(
        rg.ShapeError, match=r"lerp: t is 0\.5, a float; it takes a Tensor or Buffer .*test_op\.py"
    ):
        rg.lerp(x, x, 0.5)  # type: ignore[arg-type]  # what a user may try


def test_an_array_in_arithmetic_is_refused_by_name() -> None:
    with pytest.raises(rg.ShapeError, match=r"multiply: b is array.* a ndarray"):
        buffer(3, 4).tensor * np.ones(4)  # what a user may try


@pytest.mark.parametrize("number", [np.float32(2.5), np.int64(2), 3])
def test_numbers_of_numpy_are_parameters(number: float) -> None:
    scaled = rg.affine(buffer(4).tensor, number)
    assert isinstance(scaled.source, rg.TensorOp)
    assert scaled.source.parameters()["scale"] == float(number)


def test_arithmetic_on_integers_is_refused() -> None:
    with pytest.raises(rg.ShapeError, match="no operand of floats"):
        buffer(8, dtype=rg.DType.U32).tensor + 1.0


def test_division_means_division() -> None:
    x, y = buffer(3, 4), buffer(4)
    with tape() as items:
        x.tensor / y
        x.tensor / 2
    assert [op.name for op in items] == ["divide", "affine"]
    assert items[1].parameters()["scale"] == 0.5


def test_indices_may_be_numpys_and_have_an_ellipsis() -> None:
    x = buffer(3, 4, 5).tensor
    assert x[np.int64(1)].shape == (4, 5)
    assert x[..., 0].shape == (3, 4)
    assert x[1, ...].shape == (4, 5)


def test_one_size_of_a_shape_may_be_left_open() -> None:
    assert buffer(3, 4, 5).tensor.reshape(3, -1).shape == (3, 20)
    with pytest.raises(rg.ShapeError, match="cannot be viewed as"):
        buffer(3, 4, 5).tensor.reshape(7, -1)


def test_a_shifted_copy_within_a_buffer_goes_through_a_copy() -> None:
    history = buffer(5, 4)
    with tape() as items:
        rg.blit(history[0:4], history[1:5])
    assert [op.name for op in items] == ["identity", "blit"]


def test_an_operation_that_reads_where_it_writes_shifted_is_refused() -> None:
    history = buffer(5, 4)
    with pytest.raises(rg.ShapeError, match="reads source where it writes target, shifted"):
        Blit(history[0:4], history[1:5])


def test_an_operation_class_must_be_frozen() -> None:
    @dataclass
    class Plain(rg.Map):
        x: rg.Tensor
        wgsl = "x"

    with pytest.raises(rg.ShapeError, match="Plain is not a frozen dataclass"):
        Plain(buffer(4).tensor)


def test_a_reduction_that_kernels_lack_is_refused() -> None:
    with pytest.raises(rg.ShapeError, match="combines by 'min'"):
        rg.Reduction("least", "x", "min")


def test_a_value_of_the_graph_cannot_be_written() -> None:
    x = buffer(3, 4).tensor
    with pytest.raises(rg.ShapeError, match="a value of the graph and not memory"):
        rg.blit(x, x + 1.0)


def test_a_buffer_takes_one_size_numpys_sizes_and_a_type_by_name() -> None:
    assert rg.Buffer("one", 256).shape == (256,)
    assert rg.Buffer("two", (np.int64(4), 2)).shape == (4, 2)  # type: ignore[arg-type]  # numpy is no int
    assert rg.Buffer("half", 4, "f16").dtype is rg.DType.F16

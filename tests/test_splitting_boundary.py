"""What a user names becomes a cut: completed, or refused with the path that goes back."""

from __future__ import annotations

import judge
import pytest
import split_cases as cases

from onnxopt.errors import UsageError
from onnxopt.splitting.boundary import Boundary, complete
from onnxopt.splitting.operators import read_subject


def at(text: str, *names: str) -> Boundary:
    return complete(read_subject(cases.model(text)), names)


def test_what_the_edge_needs_besides_is_added_and_named() -> None:
    found = at(cases.RESIDUAL, "b")
    assert found.crossing == ("stem", "b")
    assert found.added == ("stem",)


def test_nothing_is_added_where_all_is_named() -> None:
    assert at(cases.RESIDUAL, "b", "stem").added == ()


def test_a_set_between_which_something_would_come_back_is_refused_with_the_path() -> None:
    with pytest.raises(UsageError) as error:
        at(cases.RESIDUAL, "a", "c")
    assert "'a' -> Tanh 'b' -> 'b' -> MatMul 'c' -> 'c'" in error.value.what
    assert error.value.exit_code == 2


def test_the_order_of_names_does_not_matter() -> None:
    assert at(cases.RESIDUAL, "stem", "b") == at(cases.RESIDUAL, "b", "stem")
    with pytest.raises(UsageError, match="come back to the device"):
        at(cases.RESIDUAL, "c", "a")


def test_two_tensors_one_of_which_follows_from_the_other_may_cross_together() -> None:
    assert at(cases.RESIDUAL, "stem", "a").crossing == ("stem", "a")


def test_a_node_stands_for_what_it_makes() -> None:
    proto = cases.model(cases.RESIDUAL)
    proto.graph.node[2].name = "the tanh"
    subject = read_subject(proto)
    assert complete(subject, ["the tanh"]) == complete(subject, ["b"])


def test_operators_that_need_nothing_of_the_edge_go_where_less_crosses() -> None:
    found = at(cases.SIDE_HEAD, "b")
    assert found.crossing == ("b",)
    assert at(cases.SIDE_HEAD, "early").crossing == ("early",)


def test_an_input_of_the_model_may_be_named() -> None:
    found = at(cases.RESIDUAL, "x")
    assert (found.device, found.crossing) == (frozenset(), ("x",))


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (cases.RESIDUAL, "stme", "no node or tensor 'stme'"),
        (cases.RESIDUAL, "w", "depends on no input"),
        (cases.QUANTIZED, "w", "depends on no input"),
        (cases.RESIDUAL, "y", "nothing reads 'y'"),
        (cases.SHAPES, "n1", "inside of the operators that stay with 'a'"),
    ],
)
def test_names_at_which_no_cut_can_be_are_refused_each_for_its_reason(
    text: str, name: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        at(text, name)


def test_a_name_that_is_nearly_right_brings_the_right_one() -> None:
    with pytest.raises(UsageError) as error:
        at(cases.RESIDUAL, "stme")
    assert "did you mean 'stem'?" in error.value.fix


def test_what_no_output_needs_is_said_to_be_in_neither_half() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { dead = Sin(x) a = Abs(x) y = Relu(a) }
    """
    with pytest.raises(UsageError, match="no output of the model needs 'dead'"):
        at(text, "dead")


def test_what_cannot_be_sent_is_refused_with_the_reason() -> None:
    subject = read_subject(judge.tiny("sequence"))
    name = next(t.name for t in subject.dag.tensors if t.why_not and t.readers)
    with pytest.raises(UsageError, match="sequence, and only tensors can be sent"):
        complete(subject, [name])


@pytest.mark.parametrize("text", [t for t, _ in {**cases.SEVEN, **cases.MORE}.values()])
def test_every_cut_that_is_named_whole_is_found_again(text: str) -> None:
    subject = read_subject(cases.model(text))
    for device in cases.down_sets(subject.dag):
        crossing = [subject.dag.tensors[t].name for t in subject.dag.crossing(device)]
        if crossing:
            found = complete(subject, crossing)
            assert (list(found.crossing), found.added) == (crossing, ())

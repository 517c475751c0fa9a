import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgeopt.quantization.islands import Link
from edgeopt.quantization.mixed import between, float_node_sets
from edgeopt.results import LayerSensitivity


def chain(*names: str) -> list[Link]:
    """Return the tensors of nodes that follow each other."""
    ends = [None, *names, None]
    return [Link(producer=first, consumers=(second,), elements=8) for first, second in itertools.pairwise(ends)]


def layer(node: str, error: float, saved_ms: float | None = None, operator: str = "Conv") -> LayerSensitivity:
    """Return one entry of a ranking."""
    return LayerSensitivity(node=node, operator=operator, error=error, saved_ms=saved_ms)


def test_sets_double_and_are_nested() -> None:
    """One, two, four nodes, the worst first, and no more than half."""
    names = [f"conv{index}" for index in range(9)]
    ranking = [layer(name, 1 / (index + 1)) for index, name in enumerate(names)]
    assert (("conv0",), ("conv0", "conv1"), ("conv0", "conv1", "conv2", "conv3")) == float_node_sets(ranking, [])


def test_error_counts_for_each_millisecond_lost() -> None:
    """A layer that int8 makes no faster goes first, though another has more error."""
    ranking = [layer("dear", 0.9, 2.0), layer("free", 0.3, -0.5), layer("cheap", 0.5, 0.1), layer("small", 0.1, 1.0)]
    assert (("free",), ("cheap", "free")) == float_node_sets(ranking, [])


def test_what_stands_between_two_float_layers_is_float_too() -> None:
    """Two elementwise nodes in a row, but not those that lead to an int8 layer."""
    links = chain("a", "relu", "scale", "b", "relu2", "c", "d")
    ranking = [layer("a", 0.9), layer("b", 0.8), layer("c", 0.2), layer("d", 0.1), layer("scale", 0.01, operator="Mul")]
    assert (("a",), ("a", "b", "relu", "scale")) == float_node_sets(ranking, links)


def test_a_second_reader_in_int8_keeps_the_node_quantized() -> None:
    """A sum that an int8 layer reads as well is no island."""
    links = [
        *chain("a", "sum", "b"),
        Link(producer="sum", consumers=("c",), elements=8),
    ]
    assert set() == between({"a", "b"}, {"a", "b", "c"}, links)
    assert {"sum"} == between({"a", "b", "c"}, {"a", "b", "c"}, links)


def test_world_outside_is_float() -> None:
    """What stands before a float stem, or behind a float head, stays in float."""
    assert {"norm", "softmax"} == between(
        {"stem", "head"}, {"stem", "body", "head"}, chain("norm", "stem", "body", "head", "softmax")
    )
    assert set() == between(set(), {"body"}, chain("norm", "body"))


def test_nothing_to_leave() -> None:
    """An empty ranking has no sets, a single layer one."""
    assert () == float_node_sets([], chain("a"))
    assert (("a",),) == float_node_sets([layer("a", 0.1)], chain("a"))


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.none() | st.floats(-1, 1), st.sampled_from(["Conv", "Mul", "Add"])),
        min_size=1,
        max_size=24,
    )
)
def test_every_set_contains_the_one_before(drawn: list[tuple[float, float | None, str]]) -> None:
    """Whatever the ranking: nested, without repetition, sorted, and all in the model."""
    names = [f"n{index:02}" for index in range(len(drawn))]
    ranking = [layer(name, *entry) for name, entry in zip(names, drawn, strict=True)]
    sets = float_node_sets(ranking, chain(*names))
    assert sets
    assert len(set(sets)) == len(sets)
    for smaller, larger in itertools.pairwise(sets):
        assert set(smaller) < set(larger)
    for nodes in sets:
        assert list(nodes) == sorted(set(nodes))
        assert set(nodes) <= set(names)

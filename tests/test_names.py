"""Two parameters never share a name in silence, and no name spoils an error message."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micrograd.engine import Value
from micrograd.names import dotted, shown
from micrograd.nn import Module


class Whatever(Module):
    """Takes its attributes as they come."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("parts", "places"),
    [
        ({"a.b": Value(1), "a": {"b": Value(2)}}, ["w['a.b']", "w['a']['b']"]),
        ({1: Value(1), "1": Value(2)}, ["w[1]", "w['1']"]),
        ({"a": [Value(1)], "a.0": Value(2)}, ["w['a'][0]", "w['a.0']"]),
        ({None: Value(1), "None": Value(3)}, ["w[None]", "w['None']"]),
    ],
)
def test_two_parameters_of_one_name_are_an_error_that_names_both(parts, places):
    model = Whatever(w=parts)
    assert len(model.parameters()) > 1  # it can be trained
    for use in (model.state_dict, lambda: list(model.named_parameters()), lambda: model.load_state_dict({})):
        with pytest.raises(ValueError, match="two parameters have the name w") as caught:
            use()
        for place in places:
            assert place in str(caught.value)


def test_one_parameter_in_two_places_of_one_name_is_no_error():
    p = Value(1.0)
    assert Whatever(w={"a.b": p, "a": {"b": p}}).state_dict() == {"w.a.b": 1.0}


def linked(path):
    keys = ()
    for key in path:
        keys = (keys, key)
    return keys


KEYS = st.sampled_from(["a", "b", "a.b", ".", "", "0", "1", 0, 1, None, "None"])


@given(paths=st.lists(st.lists(KEYS, min_size=1, max_size=4).map(tuple), unique=True, max_size=6))
def test_names_are_distinct_or_an_error(paths):
    names = [".".join(map(str, keys)) for keys in paths]
    if len(set(names)) == len(names):
        assert list(dotted((linked(keys), i) for i, keys in enumerate(paths))) == list(zip(names, itertools.count()))
    else:
        with pytest.raises(ValueError, match="two parameters have the name"):
            list(dotted((linked(keys), None) for keys in paths))


@given(text=st.text(max_size=20))
def test_what_is_shown_is_short_printable_and_of_one_line(text):
    assert shown(text * 50).isprintable()
    assert len(shown(text * 50)) <= 10 * 63
    if text.isprintable() and len(text) <= 60 and not set(text) & {"\\", "'"}:
        assert shown(text) == text


@pytest.mark.parametrize("name", ["w\x1b[2J", "w\nTraceback", "\u202ew", "\ud800", "x" * 1_000_000])
def test_untrusted_names_are_escaped_and_shortened_in_messages(name):
    model = Whatever(w=Value(1.0))
    with pytest.raises(ValueError, match="missing or unexpected") as caught:
        model.load_state_dict({name: 1.0})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="two parameters") as caught:
        Whatever(w={name: {1: Value(1), "1": Value(2)}}).state_dict()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600

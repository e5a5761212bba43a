import pytest

from zoo.config.references import ReferenceProblem, resolve_references


def test_references_keep_types_and_stand_in_texts():
    content = {
        "a": {"n": 3, "list": [1, {"x": True}]},
        "b": "${a.n}",
        "c": "n=${ a.n }, ${a.list.1.x}",
        "d": "${a.list}",
    }
    resolved = resolve_references(content)
    assert resolved["b"] == 3 and resolved["c"] == "n=3, True" and resolved["d"] == [1, {"x": True}]
    assert resolve_references({"a": {"b": {"c": "${..n}", "d": "${.c}"}, "n": 5}})["a"]["b"] == {"c": 5, "d": 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": "${a}"}, "circular"),
        ({"a": {"b": "${a}"}}, "circular"),
        ({"a": "${b.c}"}, "no key 'b.c'"),
        ({"a": {"x": 1}, "b": "text ${a}"}, "not a single value"),
        ({"a": "???"}, "must be given"),
        ({"a": "$", "b": "{oc.env:HOME}", "c": "${a}${b}"}, "only"),
    ],
)
def test_references_that_cannot_be_followed(content, message):
    with pytest.raises(ReferenceProblem, match=message):
        resolve_references(content)

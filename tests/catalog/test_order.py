"""Moving a rule in the order of rules."""

from hypothesis import given
from hypothesis import strategies as st

from app.catalog.rules.order import Place, moved

RULES = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 5), min_size=1, max_size=8)


@given(RULES, st.data())
def test_a_moved_rule_is_where_it_should_be_and_the_others_keep_their_order(
    rules: dict[str, int], data: st.DataObject
) -> None:
    name, steps = data.draw(st.sampled_from(sorted(rules))), data.draw(st.integers(-3, 3))
    before = [place.name for place in sorted(Place(position, each) for each, position in rules.items())]
    wanted = [each for each in before if each != name]
    wanted.insert(min(max(before.index(name) + steps, 0), len(wanted)), name)
    changed = moved([Place(position, each) for each, position in rules.items()], name, steps)
    after = sorted(Place(position, each) for each, position in (rules | changed).items())
    assert [place.name for place in after] == wanted
    assert all(rules[each] != position for each, position in changed.items())


def test_passing_a_rule_at_another_position_changes_as_little_as_possible() -> None:
    places = [Place(10, "a"), Place(20, "b"), Place(30, "c"), Place(40, "d")]
    assert moved(places, "c", -1) == {"c": 20, "b": 21}
    assert moved(places, "b", 1) == {"b": 31}
    assert moved(places, "d", -3) == {"d": 10, "a": 11}


def test_a_rule_that_keeps_its_position_is_not_among_the_changed() -> None:
    # `a` cannot take the position of `c`, because `b`, which stays before it, has the later name.
    assert moved([Place(1, "a"), Place(0, "b"), Place(0, "c")], "a", -1) == {"c": 1}

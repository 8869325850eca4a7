"""One registry: the page, REST and the exposition say of each number what it says, and nothing of their own."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.incidents.definitions import DEFINITIONS, FORMULAS, Kind
from app.incidents.measures import MEASURES
from app.metrics import survival
from app.metrics.families import FAMILIES
from app.metrics.reference import REFERENCE_BEGINS, reference
from tests.processes import REPOSITORY
from tests.test_exposition import an_incident, price, store

PAGE = (REPOSITORY / "docs" / "numbers.md").read_text()
PROSE, _, REFERENCE = PAGE.partition(REFERENCE_BEGINS)
HOURS = 3600.0

ROUTES = {
    "summary": {"group_by": "service"},
    "timeseries": {"interval": "week"},
    "downtime": {},
    "whatif": {"time_to_recover": "-20%"},
    "compare": {
        "measure": "time_to_recover",
        "a_from": "2024-08-19T00:00:00Z",
        "a_to": "2024-08-20T00:00:00Z",
        "b_from": "2024-08-20T00:00:00Z",
        "b_to": "2024-08-21T00:00:00Z",
    },
}


def test_every_measure_is_in_the_registry_as_it_is_defined() -> None:
    known = {each.name: each for each in DEFINITIONS}
    assert len(known) == len(DEFINITIONS)
    for measure in MEASURES:
        found = known[measure.name]
        assert (found.kind, found.formula, found.starts, found.ends) == (
            Kind.MEASURE,
            measure.formula,
            measure.starts,
            measure.ends,
        )
    for each in DEFINITIONS:
        assert all((each.label, each.unit, each.formula, each.clock, each.counted, each.left_out, each.cannot_tell))
        assert each.version >= 1


def test_the_page_ends_with_the_registry() -> None:
    assert reference() == REFERENCE_BEGINS + REFERENCE, "stale: run `make numbers`"
    for each in DEFINITIONS:
        assert f"### `{each.name}`\n" in REFERENCE
        assert f"- **Formula:** {each.formula}." in REFERENCE
    for family in FAMILIES.values():
        assert f"| `{family.name}` |" in REFERENCE


async def test_every_formula_in_rest_is_that_of_the_registry(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    period = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
    for route, parameters in ROUTES.items():
        answer = await client.get(
            f"/api/v1/metrics/{route}", params=parameters if route == "compare" else {**period, **parameters}
        )
        assert answer.status_code == 200, answer.text
        found = list(formulas(answer.json()))
        assert found, route
        assert [each for each in found if each not in FORMULAS.values()] == [], route


def formulas(answer: Any) -> Iterator[str]:
    match answer:
        case dict():
            for name, value in answer.items():
                if name == "formula":
                    yield value
                elif name == "formulas":
                    yield from value.values()
                else:
                    yield from formulas(value)
        case list():
            for value in answer:
                yield from formulas(value)


async def test_definitions_are_served_as_registered(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/api/v1/metrics/definitions")).json()
    assert [(each["name"], each["formula"]) for each in answer["definitions"]] == list(FORMULAS.items())
    assert [each["name"] for each in answer["families"]] == list(FAMILIES)
    [recover] = [each for each in answer["definitions"] if each["name"] == "time_to_recover"]
    assert recover["kind"] == "measure"
    assert recover["starts"] == "impact start if stated, else detection"


async def test_every_family_has_the_help_of_the_registry(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"), an_incident("12:00"))
    await price(engine, "60")
    body = (await client.get("/metrics")).text
    served = {family.name: family for family in parse_text(body) if family.name.startswith("aftermath_")}
    known = {family.name.removesuffix("_total"): family for family in FAMILIES.values()}
    assert served.keys() == known.keys()
    for name, family in served.items():
        assert family.documentation == known[name].formula
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(known[name].labels), sample


# — what the prose claims —


def test_means_improve_by_chance_as_often_as_the_page_says() -> None:
    random = np.random.default_rng(20260820)
    for n in (50, 150, 300):
        before, after = (random.lognormal(np.log(45), 1.5, (4000, n)).mean(1) for _ in range(2))
        assert f"{(after <= 0.9 * before).mean():.0%}".replace("%", " %") in PROSE


def test_what_is_open_matters_as_much_as_the_page_says() -> None:
    random, n = np.random.default_rng(1), 100_000
    since, lasts = random.uniform(0, 168 * HOURS, n), random.lognormal(np.log(2 * HOURS), 1.8, n)
    closed = lasts <= 168 * HOURS - since
    found = survival.estimates(lasts[closed], (168 * HOURS - since)[~closed], 48 * HOURS)
    assert found is not None
    assert found.median.seconds is not None
    assert f"{(~closed).mean() * 100:.1f} % are still open" in PROSE
    closed_median, closed_mean = np.median(lasts[closed]) / HOURS, lasts[closed].mean() / HOURS
    assert f"| {closed_median:.2f} h | {found.median.seconds / HOURS:.2f} h (Kaplan-Meier) | 2.00 h |" in PROSE
    assert f"| {closed_mean:.2f} h | | {2 * np.exp(1.8**2 / 2):.2f} h |" in PROSE
    assert f"| {found.restricted_mean.seconds / HOURS:.2f} h (restricted mean) | 6.77 h |" in PROSE

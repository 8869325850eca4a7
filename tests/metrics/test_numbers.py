"""One registry: docs, REST and the exposition use the same texts for each number."""

import csv
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT
from app.incidents.definitions import DEFINED, DEFINITIONS
from app.incidents.definitions.model import SUMMARY_FROM, DefinitionKind
from app.incidents.grouping.signal import EndReason
from app.incidents.history.path import Effect
from app.incidents.measures.measures import MEASURES
from app.metrics.comparison.compare import Trend
from app.metrics.prometheus.families import FAMILIES
from app.metrics.prometheus.snapshot import OTHER
from app.metrics.reference import REFERENCE_BEGINS, reference
from app.metrics.summary import survival
from app.response.targets import TargetOutcome
from tests.metrics.prometheus.test_exposition import an_incident, at, price, settled, store
from tests.processes import REPOSITORY

PAGE = (REPOSITORY / "docs" / "numbers.md").read_text()
PROSE, _, REFERENCE = PAGE.partition(REFERENCE_BEGINS)
HOURS = 3600.0

PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
QUESTIONS = {
    "summary": {"group_by": "service"},
    "timeseries": {"interval": "week"},
    "whatif": {"time_to_recover": "-20%"},
}
COMPARED = {
    "measure": "time_to_recover",
    "a_from": "2024-08-19T00:00:00Z",
    "a_to": "2024-08-20T00:00:00Z",
    "b_from": "2024-08-20T00:00:00Z",
    "b_to": "2024-08-21T00:00:00Z",
}


def test_every_measure_is_in_the_registry_as_it_is_defined() -> None:
    known = {each.name: each for each in DEFINITIONS}
    assert len(known) == len(DEFINITIONS)
    for measure in MEASURES:
        found = known[measure.name]
        assert (found.kind, found.formula, found.starts, found.ends) == (
            DefinitionKind.MEASURE,
            measure.formula,
            measure.starts,
            measure.ends,
        )
    for each in DEFINITIONS:
        assert all(
            (
                each.label,
                each.unit,
                each.statistic,
                each.formula,
                each.clock,
                each.counted,
                each.left_out,
                each.cannot_show,
            )
        )
        assert each.version >= 1


def test_the_page_ends_with_the_registry() -> None:
    assert reference() == REFERENCE_BEGINS + REFERENCE, "stale: run `make numbers`"
    for each in DEFINITIONS:
        assert f"### `{each.name}`\n" in REFERENCE
        assert f"- **Formula:** {each.formula}." in REFERENCE
    for family in FAMILIES.values():
        assert f"| `{family.name}` |" in REFERENCE


# — every number in a response is defined —

SCHEMAS = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())
ANSWERS = {
    **{
        path.removeprefix("/api/v1/metrics/"): methods["get"]
        for path, methods in SCHEMAS["paths"].items()
        if path.startswith("/api/v1/metrics/") and not path.endswith("/definitions")
    },
    "objective": SCHEMAS["paths"]["/api/v1/services/{name}/objective"]["get"],
}

# Names of parts of a number; the number is the object that contains them.
PARTS = {"value", "low", "high", "expected", "ratio", "shorter", "longer", "days", "per_day", "hours", "rate", "k"}
PARTS |= {
    "total",
    "total_after",
    "share",
    "largest_share",
    "a",
    "b",
    "from",
    "to",
    "statistics",
    "estimates",
    "median_interval",
    "amounts",
    "links",
    "measures",
    "groups",
    "services",
    "acknowledge",
    "update",
    "resolve",
}
# The repeated query, and counts of omitted list entries: no numbers about incidents.
ECHOES = {
    "hour_of_week",
    "group",
    "groups_left_out",
    "services_left_out",
    "incidents_left_out",
    "cost_per_hour",
    "rolling_days",
}
# Names in responses that mean different numbers in different places.
CALLED: dict[tuple[str, str], str] = {
    ("objective", "error_budget"): "budget",
    ("objective", "incidents"): "burned",
    ("objective", "left_out"): "burned",
    ("objective", "burn_rates"): "burn_rate",
    ("whatif", "incidents"): "incidents_with_impact",
    ("whatif", "before"): "cost",
    ("whatif", "after"): "whatif",
    ("whatif", "downtime_before"): "downtime",
    ("whatif", "downtime_after"): "whatif_downtime",
    ("whatif", ""): "whatif",
    ("summary", "horizon"): "restricted_mean",
    ("action-items", "horizon"): "restricted_mean",
    ("compare", "measure"): "time_to_recover",
    **{("targets", outcome): "target_outcomes" for outcome in TargetOutcome},
    ("targets", "share_met"): "targets_met",
    **{("tasks", effect): "tasks" for effect in Effect},
    ("tasks", "without_positive_effect"): "tasks_without_positive_effect",
    ("compare", "storms"): "compare_clusters",
    ("compare", "weeks"): "compare_clusters",
    ("compare", "by_storms"): "compare_interval",
    ("compare", "by_weeks"): "compare_interval",
    ("dora", "without_duration"): "left_out",
    ("dora", "mean_hours_to_recover"): "failed_deployment_recovery_time",
}


def defined(route: str, path: Sequence[str]) -> str | None:
    """The definition of the number at this place of a response, by its name there; None: not a number."""
    for word in reversed(path):
        name = word.removesuffix("_seconds") if word != "seconds" else ""
        for known in (CALLED.get((route, name)), f"{route}_{name}", name, word):
            if known in DEFINED:
                return known
        if word in ECHOES:
            return None
        if name and name not in PARTS:
            break
    else:
        if (route, "") in CALLED:
            return CALLED[route, ""]
    message = f"{route}: {'.'.join(path)} is in no definition"
    raise AssertionError(message)


@pytest.mark.parametrize("route", ANSWERS)
def test_every_number_in_an_answer_is_defined(route: str) -> None:
    schema = ANSWERS[route]["responses"]["200"]["content"]["application/json"]["schema"]
    places = set(numbers_in(schema))
    assert len(places) > 5
    for path in places:
        defined(route, path)


def numbers_in(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths to numbers and amounts of money (which are text) in a schema."""
    if "$ref" in schema:
        schema = SCHEMAS["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("anyOf", ()):
        yield from numbers_in(choice, path)
    if schema.get("type") in {"number", "integer"} or (path and path[-1] in {"low", "expected", "high"}):
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from numbers_in(part, (*path, name))
    for part in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from numbers_in(part, path)


async def test_every_definition_that_rest_names_is_that_of_its_number(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    await client.put("/api/v1/services/checkout/objective", json={"target": "0.99", "window": {"rolling_days": 30}})
    for route in ANSWERS:
        address = "/api/v1/services/checkout/objective" if route == "objective" else f"/api/v1/metrics/{route}"
        parameters = {"compare": COMPARED, "objective": {}}.get(route, PERIOD | QUESTIONS.get(route, {}))
        answer = await client.get(address, params=parameters)
        assert answer.status_code == 200, answer.text
        found = list(definitions(answer.json()))
        assert found, route
        for path, definition in found:
            assert definition == defined(route, path), (route, path)


def definitions(answer: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    match answer:
        case dict():
            for name, value in answer.items():
                if name == "definitions":
                    yield from (((*path, each), definition) for each, definition in value.items())
                elif name == "definition":
                    yield path, value
                else:
                    yield from definitions(value, (*path, name))
        case list():
            for value in answer:
                yield from definitions(value, path)


async def test_definitions_are_served_as_registered(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/api/v1/metrics/definitions")).json()
    assert [(each["name"], each["formula"]) for each in answer["definitions"]] == [
        (each.name, each.formula) for each in DEFINITIONS
    ]
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


def test_a_family_has_the_wording_of_the_registry() -> None:
    """Only families about sources, and times, have texts of their own."""
    for family in FAMILIES.values():
        if family.shows is not None:
            assert DEFINED[family.shows].formula in family.formula
        elif {"service", "severity", "currency"} & set(family.labels):
            assert family.name.endswith("_timestamp_seconds")


# — all surfaces show the same numbers —


async def test_all_surfaces_show_the_same_numbers(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """One service and day, all incidents settled, without sev5 and without maintenance."""
    began = [at("02:00") + timedelta(minutes=37 * n) for n in range(24)]
    await store(
        engine,
        *(
            an_incident(
                "00:00",
                "01:00",
                began_at=each,
                ended_at=each + timedelta(minutes=5 + 3 * n % 50, seconds=n),
                reach_at=each + timedelta(hours=2),
                acknowledged_at=each + timedelta(minutes=n % 7) if n % 3 else None,
                declared_at=each + timedelta(minutes=1 + n % 7) if n % 3 else None,
                first_public_at=each + timedelta(minutes=4 + n % 9) if n % 4 else None,
                impact_started_at_stated=each - timedelta(minutes=n % 5) if n % 2 else None,
                severity=1 + n % 3,
                end_reason="recovered" if n % 8 else "rule_paused",
            )
            for n, each in enumerate(began)
        ),
    )
    await price(engine, "3600")
    assert await settled(engine, datetime.now(UTC)) == len(began)
    of_checkout = PERIOD | {"service": "checkout"}

    async def ask(route: str, **parameters: Any) -> Any:
        answer = await client.get(f"/api/v1/metrics/{route}", params=of_checkout | parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    total = (await ask("summary"))["total"]
    measured = await ask("timeseries", interval="day", measure=[measure.name for measure in MEASURES])
    [point] = measured["series"][0]["points"]
    downtime, [available] = await ask("downtime"), (await ask("availability"))["services"]
    unchanged = await ask("whatif", incidents="+0%")
    dora = await ask("dora")
    families = {
        name: {frozenset(sample.labels.items()): sample.value for sample in family.samples if sample.name == name}
        for family in parse_text((await client.get("/metrics")).text)
        for name in {sample.name for sample in family.samples}
    }

    def scraped(name: str) -> float:
        return sum(families[f"aftermath_{name}"].values())

    assert total["incidents"]["value"] == point["incidents"] == scraped("incidents_total") == len(began)
    assert total["open"]["value"] == point["open"] == scraped("incidents_open") == 0
    for measure in MEASURES:
        found, again = total["measures"][measure.name], point["measures"][measure.name]
        assert {name: found[name] for name in again} == again
        sides = await client.get("/api/v1/metrics/compare", params=COMPARED | {"measure": measure.name})
        b = sides.json()["b"]
        left_out = found["censored"] + found["invalid"] + sum(found["excluded"].values())
        assert (b["n"], b["censored"] + sum(b["left_out"].values())) == (found["n"], left_out)
        if measure.histogram:
            assert scraped(f"{measure.name}_seconds_count") == found["n"] > SUMMARY_FROM
            assert scraped(f"{measure.name}_seconds_sum") == pytest.approx(
                found["statistics"]["mean"] * found["n"], abs=0.001 * found["n"]
            )
    await assert_sheets_show(client, of_checkout, total)
    recovery, of_dora = total["measures"]["time_to_recover"], dora["time_to_recover"]
    assert (of_dora["n"], of_dora["pending"], of_dora["without_duration"]) == (recovery["n"], 0, 3)
    assert of_dora["statistics"] == recovery["statistics"]
    assert dora["unlinked"]["n"] == unchanged["incidents"] == available["failures"]["value"] == len(began)

    down = total["downtime"]["seconds"]
    assert 0 < down < 24 * HOURS
    assert [
        point["downtime"]["seconds"],
        downtime["downtime"]["seconds"],
        downtime["services"][0]["downtime"]["seconds"],
        available["downtime_seconds"],
        unchanged["total"]["downtime_before_seconds"],
        unchanged["total"]["downtime_after_seconds"],
        scraped("downtime_seconds_total"),
    ] == [down] * 7
    assert available["availability"] == pytest.approx(1 - down / (24 * HOURS))
    cost = total["cost"]["amounts"]
    assert float(cost["EUR"]["expected"]) == pytest.approx(available["downtime_weighted_seconds"], abs=0.01)
    assert float(cost["EUR"]["expected"]) == pytest.approx(scraped("downtime_cost_total"), abs=0.01)
    listed = (await client.get("/api/v1/incidents", params=of_checkout | {"limit": "500"})).json()["items"]
    of_incidents = sum(Decimal(each["cost"]["EUR"]["expected"]) for each in listed)
    assert abs(of_incidents - Decimal(cost["EUR"]["expected"])) <= Decimal("0.005") * len(began), "each is rounded"
    assert [
        point["cost"]["amounts"],
        downtime["cost"]["amounts"],
        downtime["services"][0]["cost"]["amounts"],
        unchanged["total"]["before"],
        unchanged["total"]["after"],
    ] == [cost] * 5


async def assert_sheets_show(client: httpx.AsyncClient, question: dict[str, str], total: Any) -> None:
    for route in ("summary", "timeseries", "downtime"):
        path, form = f"/api/v1/metrics/{route}", {"format": "csv"}
        totals = form if route == "downtime" else form | {"table": "totals"}
        sheet = await client.get(path, params=question | totals)
        line = next(csv.DictReader(StringIO(sheet.text, newline="")))
        assert float(line["downtime_seconds"]) == total["downtime"]["seconds"]
        assert line["cost_eur_low"] == total["cost"]["amounts"]["EUR"]["low"]
        if route != "downtime":
            assert int(line["incidents"]) == total["incidents"]["value"]
            measured = await client.get(path, params=question | form | {"measure": [*total["measures"]]})
            lines = {line["measure"]: line for line in csv.DictReader(StringIO(measured.text, newline=""))}
            assert lines.keys() == total["measures"].keys()
            for measure, found in total["measures"].items():
                for statistic in ("n", "censored", "median", "p90", "p95", "geometric_mean", "mean"):
                    cell = lines[measure][statistic]
                    known = found | (found["statistics"] or {})
                    assert (float(cell) if cell else None) == known.get(statistic)


# — claims of the documentation —


def test_names_in_the_prose_exist() -> None:
    answered = {name for schema in SCHEMAS["components"]["schemas"].values() for name in schema.get("properties", {})}
    asked = {
        each["name"] for methods in SCHEMAS["paths"].values() for each in methods.get("get", {}).get("parameters", ())
    }
    named = set(re.findall(r"`([a-z_]{3,})(?:=true)?`", PROSE))
    assert len(named) > 10
    values = {"null", UNKNOWN_ENVIRONMENT, OTHER, *Trend, *EndReason}
    assert named <= answered | asked | DEFINED.keys() | FAMILIES.keys() | values
    routes = set(re.findall(r"(/api/v1/[a-z/{}]+)", PROSE))
    assert len(routes) > 1
    assert routes <= SCHEMAS["paths"].keys()


def test_means_improve_by_chance_as_often_as_documented() -> None:
    random = np.random.default_rng(20260820)
    for n in (50, 150, 300):
        before, after = (random.lognormal(np.log(45), 1.5, (4000, n)).mean(1) for _ in range(2))
        assert f"{(after <= 0.9 * before).mean():.0%}".replace("%", " %") in PROSE


def test_open_incidents_matter_as_much_as_documented() -> None:
    random, n = np.random.default_rng(1), 100_000
    since, lasts = random.uniform(0, 168 * HOURS, n), random.lognormal(np.log(2 * HOURS), 1.8, n)
    closed = lasts <= 168 * HOURS - since
    found = survival.estimates(
        lasts[closed],
        (168 * HOURS - since)[~closed],
        48 * HOURS,
        began=np.concatenate((since[closed], since[~closed])),
        observed=timedelta(days=7),
    )
    assert found is not None
    assert found.median.seconds is not None
    assert f"{(~closed).mean() * 100:.1f} % are still open" in PROSE
    closed_median, closed_mean = np.median(lasts[closed]) / HOURS, lasts[closed].mean() / HOURS
    assert f"| {closed_median:.2f} h | {found.median.seconds / HOURS:.2f} h (Kaplan-Meier) | 2.00 h |" in PROSE
    assert f"| {closed_mean:.2f} h | | {2 * np.exp(1.8**2 / 2):.2f} h |" in PROSE
    assert f"| {found.restricted_mean.seconds / HOURS:.2f} h (restricted mean) | 6.77 h |" in PROSE

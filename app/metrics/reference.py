"""Writes the generated part of docs/numbers.md: the registry as prose."""

from collections.abc import Mapping

from app.incidents.definitions import DEFINITIONS
from app.incidents.definitions.model import Definition, DefinitionKind
from app.metrics.prometheus.families import FAMILIES

REFERENCE_BEGINS = "<!-- Everything below is generated from the registry by `make numbers`. -->\n"


def reference() -> str:
    """Every definition and metric family, as Markdown."""
    parts = [REFERENCE_BEGINS]
    for kind, title in _TITLES.items():
        parts += [f"## {title}\n", *(_entry(each) for each in DEFINITIONS if each.kind is kind)]
    parts += ["## Prometheus metrics\n", "| family | type | labels | meaning |\n|---|---|---|---|"]
    rows = (
        f"| `{each.name}` | {each.type} | {', '.join(each.labels)} | {each.formula} (version {each.version}) |"
        for each in FAMILIES.values()
    )
    return "\n".join([*parts, *rows]) + "\n"


_TITLES: Mapping[DefinitionKind, str] = {
    DefinitionKind.MEASURE: "Measures of one incident",
    DefinitionKind.STATISTIC: "Statistics of one measure over many incidents",
    DefinitionKind.METRIC: "Metrics of a period",
}


def _entry(each: Definition) -> str:
    lines = [f"### `{each.name}`\n", f"{each.label}, in {each.unit}; version {each.version}.\n"]
    if each.starts and each.ends:
        lines.append(f"- **From** {each.starts} **to** {each.ends}.")
    lines += [
        f"- **Statistic:** {each.statistic}.",
        f"- **Formula:** {each.formula}.",
        f"- **Clock:** {each.clock}.",
        *([f"- **Second clock, with a calendar:** {each.second_clock}."] if each.second_clock else []),
        f"- **Counted:** {each.counted}.",
        f"- **Left out:** {each.left_out}.",
        f"- **It cannot show** {each.cannot_show}.\n",
    ]
    return "\n".join(lines)

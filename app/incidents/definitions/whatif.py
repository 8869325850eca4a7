"""Definitions of the numbers of what-if scenarios."""

from app.incidents.definitions.model import NO_RATE, PLANNED, WITH_IMPACT, WITH_IMPACT_AND_RATE, metric

_NO_FORECAST = "future savings: it recomputes the past under the assumptions that the response lists"

WHAT_IF = (
    metric(
        "whatif",
        "Hypothetical cost",
        "currency",
        "sum, exact",
        "the cost of [from, to) with the time from (impact_started_at, else detected_at) to resolved_at of every "
        "incident changed to the length time_to_recover'(lasted + change of time_to_detect + change of "
        "time_to_acknowledge), never below 0: its impact is cut at the new end, or its last part extended to it; and "
        "the contribution of the selected incidents multiplied by the change of their number",
        counted=WITH_IMPACT_AND_RATE,
        left_out=f"{NO_RATE}; incidents that ended before the period, even if the change would extend them into it",
        cannot_show=_NO_FORECAST,
    ),
    metric(
        "whatif_difference",
        "Difference of cost",
        "currency",
        "difference, exact",
        "whatif - cost, so savings are negative",
        counted=WITH_IMPACT_AND_RATE,
        left_out=NO_RATE,
        cannot_show=_NO_FORECAST,
    ),
    metric(
        "whatif_downtime",
        "Hypothetical downtime",
        "seconds",
        "sum over services of a union of intervals",
        "downtime with the impact cut or extended as for whatif, and the contribution of the selected incidents "
        "multiplied by the change of their number",
        counted=WITH_IMPACT,
        left_out=PLANNED,
        cannot_show="future downtime",
    ),
    metric(
        "applied",
        "Incidents that a change applies to",
        "incidents",
        "count",
        "of the incidents with impact in [from, to), those that have the time being changed: a stated impact start, an "
        "acknowledgement, an end",
        counted=WITH_IMPACT,
        left_out="incidents without that time, and open ones, unless the number of incidents is what changes",
        cannot_show="anything by itself; if it is small, the change has little effect",
    ),
)

"""Definitions of the numbers of action items."""

from app.incidents.definitions.model import SUMMARY_FROM, metric

_CREATED = "action items created in the period"

ACTION_ITEMS = (
    metric(
        "action_items",
        "Action items",
        "action items",
        "count",
        "the number of action items created in [from, to)",
        counted=_CREATED,
        left_out="nothing",
        cannot_show="how much a team learned: a few action items that are done help more than many that are not",
    ),
    metric(
        "time_to_complete",
        "Time to complete",
        "seconds",
        "as for the measures of incidents: Kaplan-Meier over recorded and waiting times",
        "closed_at - created_at of action items that are done; those still open are pending, and those that were "
        "dropped are censored at that time",
        counted=_CREATED,
        left_out=f"nothing; with fewer than {SUMMARY_FROM} done, the values are listed instead",
        cannot_show="how much work it was, or whether it helped",
    ),
    metric(
        "done_in_time",
        "Done in time",
        "ratio",
        "ratio",
        "of the action items whose due time has passed, the share that was done by then; Wilson interval of 95 %",
        counted=f"{_CREATED}, with a due time before now",
        left_out="action items without a due time, those not yet due, and dropped ones",
        cannot_show="whether the due times were realistic; they can be moved",
    ),
)

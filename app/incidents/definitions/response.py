"""Definitions of the numbers about the response to incidents."""

from app.incidents.definitions.model import EVERY_INCIDENT, SUMMARY_FROM, metric

_NO_SERVICE = "merged incidents (counted as the one they were merged into); monitoring failures"
_FEW = f"the share if fewer than {SUMMARY_FROM} are counted, because it would mostly reflect chance"

RESPONSE = (
    metric(
        "target_outcomes",
        "Outcomes of targets",
        "incidents",
        "a count for each outcome",
        "an incident is judged by the target of its service for its severity, else by that of all services, as in "
        "force at detected_at. acknowledge compares acknowledged_at - detected_at; resolve compares resolved_at - "
        "detected_at; update compares the longest time without an update to stakeholders between detected_at and "
        "resolved_at, else now. met: at most the target; missed: more, also while it is pending; cannot_tell: ended "
        "within the target without acknowledgement, or without a recovery",
        counted=EVERY_INCIDENT,
        left_out=_NO_SERVICE,
        cannot_show="whether the target was a sensible one, or whether users were helped",
    ),
    metric(
        "targets_met",
        "Share of targets met",
        "share of incidents",
        "a ratio",
        "met / (met + missed), with the 95 % interval by Wilson",
        counted="incidents detected in the period that met or missed the target",
        left_out=f"incidents whose outcome is pending, cannot_tell or not_agreed; {_NO_SERVICE}; {_FEW}",
        cannot_show="anything about incidents for which nothing was agreed",
    ),
    metric(
        "tasks",
        "Tasks by effect",
        "tasks",
        "a count for each effect",
        "the tasks that people recorded, as last corrected, by their effect; by phase, the phase of the incident in "
        "which the task began",
        counted="tasks of incidents detected in the period",
        left_out=f"withdrawn tasks; {_NO_SERVICE}",
        cannot_show="work that no one recorded",
    ),
    metric(
        "tasks_without_positive_effect",
        "Share of tasks without positive effect",
        "share of tasks",
        "a ratio",
        "(negative + none) / (positive + negative + none), with the 95 % interval by Wilson",
        counted="tasks whose effect is stated, of incidents detected in the period",
        left_out=f"tasks whose effect is unknown, whose share is shown next to it; {_FEW}",
        cannot_show="that this work was waste: ruling out a cause helps too",
    ),
    metric(
        "updates_overdue",
        "Overdue updates",
        "incidents",
        "a count",
        "open incidents for which now is after the time of the next update to stakeholders: the time promised with the "
        "last one, else the last one (detected_at, if there is none) + the cadence of the incident's type, else of its "
        "target, else 30 minutes for sev1 and sev2",
        counted="incidents open now, whenever they were detected",
        left_out="incidents for which no cadence is agreed on and no update was promised",
        cannot_show="whether stakeholders were informed in a way that no one recorded",
    ),
)

"""Deployments and DORA's numbers."""

from app.incidents.definitions.model import DEPLOYED, EVERY_INCIDENT, NO_RECOVERY, SUMMARY_FROM, metric

_FINISHED = "deployments of the service and environment in question that finished in [from, to)"
_NOT_FINISHED = "cancelled and unfinished deployments; environments that are not production, unless asked for"
_CAUSED = "incidents that a deployment is known to have caused, or is likely to: `basis` says how that is known"
_FEW_OF_DORA = f"statistics, if fewer than {SUMMARY_FROM} values are known: `values` has the single ones"
_FALSE_ALARMS = "sev5 (false alarms); merged incidents; trouble of the monitoring"

DORA = (
    metric(
        "deployment_frequency",
        "Deployment frequency",
        "per day",
        "rate, with an interval",
        "deployments that succeeded and finished in [from, to), per day; exact Poisson interval of 95 %",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_tell="how much was delivered; and its interval is for deployments that come by chance, which planned "
        "ones do not",
        clock=DEPLOYED,
    ),
    metric(
        "lead_time_for_changes",
        "Lead time for changes",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "finished_at - commit time, for each commit of a deployment that succeeded in [from, to), counted once per "
        "service with the first such deployment; a commit later than its deployment is left out and counted; median "
        "with the interval of its order statistics, 95 %",
        counted="commits with a time, of deployments that succeeded in [from, to)",
        left_out=f"deployments that tell no time of a commit, counted as without_commit_times; {_FEW_OF_DORA}",
        cannot_tell="how long the idea waited before the commit; a rebase makes old work look young. Commits of one "
        "deployment share its end, so the interval is narrower than it should be",
        clock=DEPLOYED,
        version=2,
    ),
    metric(
        "without_commit_times",
        "Deployments without commit times",
        "deployments",
        "count",
        "deployments that succeeded in [from, to) and tell no time of any commit",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_tell="their lead times, which are in no number",
        clock=DEPLOYED,
    ),
    metric(
        "deployments",
        "Deployments",
        "deployments",
        "count",
        "finished deployments: with the outcome succeeded or failed",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="how large they were",
        clock=DEPLOYED,
    ),
    metric(
        "change_failures",
        "Failed deployments",
        "deployments",
        "count",
        "distinct finished deployments that needed immediate intervention: marked so (needed_intervention), or the "
        "cause of an incident that is neither sev5 (false alarm) nor trouble of the monitoring. A pipeline's outcome "
        "`failed` alone harms nobody and is not one",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="more than its links: one to the last deployment before an incident is a guess, see `basis`",
        clock=DEPLOYED,
    ),
    metric(
        "change_fail_rate",
        "Change fail rate",
        "ratio",
        "ratio, with an interval",
        "change_failures / deployments, so never above 1; Wilson interval of 95 %",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="whether changes are bad, or only well watched: what nobody links does not count. Recent "
        "deployments may still fail",
        clock=DEPLOYED,
    ),
    metric(
        "failed_deployment_recovery_time",
        "Failed deployment recovery time",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of the incidents that the failed deployments of [from, to) caused, whenever they were "
        "detected",
        counted=_CAUSED,
        left_out=f"{NO_RECOVERY}; {_FALSE_ALARMS}; failed deployments without an incident; what is pending; "
        f"{_FEW_OF_DORA}",
        cannot_tell="how long recovery takes if it takes long: open incidents are counted as pending and are in no "
        "quantile here",
        version=2,
    ),
    metric(
        "dora_time_to_recover",
        "Time to recover, of all incidents",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of all incidents detected in [from, to), whatever caused them",
        counted=EVERY_INCIDENT,
        left_out=f"{NO_RECOVERY}; {_FALSE_ALARMS}; what is pending; {_FEW_OF_DORA}",
        cannot_tell="how good deploying is: it stands beside failed_deployment_recovery_time to be compared with it",
        version=2,
    ),
    metric(
        "rework_rate",
        "Deployment rework rate",
        "ratio",
        "ratio, with an interval",
        "finished deployments that are `unplanned` and name the incident they were made for (made_for) / deployments; "
        "Wilson interval of 95 %",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="rework that nobody marks as unplanned",
        clock=DEPLOYED,
    ),
    metric(
        "unplanned_without_incident",
        "Unplanned deployments without an incident",
        "deployments",
        "count",
        "finished deployments that are `unplanned` and name no incident; they are not in rework_rate",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="why they were made",
        clock=DEPLOYED,
    ),
    metric(
        "unlinked",
        "Incidents without a known cause",
        "ratio",
        "ratio, with an interval",
        "incidents detected in [from, to) of which nothing says which deployment caused them, or that none did / "
        "incidents detected; Wilson interval of 95 %",
        counted=EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_tell="what caused them. The larger it is, the less the change fail rate means",
    ),
    metric(
        "bases",
        "Linked incidents, by basis",
        "incidents",
        "count",
        "incidents detected in [from, to) whose cause is known, by how: stated by a person, a label that names the "
        "deployment, a version in the labels that was deployed in the week before, or the last deployment in the 24 "
        "hours before",
        counted=EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_tell="whether the links are right: last_deployment is a guess by time alone",
    ),
    metric(
        "dora_cost",
        "Cost of downtime by DORA's formula",
        "currency",
        "product, exact",
        "deployments x change_fail_rate x mean failed_deployment_recovery_time in hours x hourly cost of outage as it "
        "is at `to`",
        counted="one service with a rate",
        left_out="incidents that no deployment caused; failed deployments without an incident take the mean",
        cannot_tell="what it cost: it is a cross-check that takes every failure for a full outage and none to overlap. "
        "For what it cost there is `cost`",
        clock=DEPLOYED,
    ),
)

"""Why an action on an incident is refused."""

from app.base.errors import Conflict, Invalid, NotFound


class IncidentNotFound(NotFound):
    title = "Incident not found"


class MergedAway(Conflict):
    title = "Incident was merged"


class AlreadyResolved(Conflict):
    title = "Incident already resolved"


class BeforeDetection(Invalid):
    title = "Before detection"


class LaterAlertExists(Conflict):
    title = "Incident has a later alert"


class NewerIncidentExists(Conflict):
    title = "Newer incident with the same key"


class UnknownType(Invalid):
    title = "Unknown incident type"


class InTheFuture(Invalid):
    title = "Time in the future"

"""Every kind of door that tells of deployments. A new one is a file beside this, a line below and its fixtures.

Its kind stands in `access.CHANGE_KINDS` too, for those who make sources and tokens and know no slice.
"""

from collections.abc import Mapping
from types import MappingProxyType

from app.metrics.deployments.source import Source
from app.metrics.deployments.sources import deployments, github, gitlab, pagerduty_change

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        source.kind: source
        for source in (
            deployments.SOURCE,
            github.SOURCE,
            gitlab.SOURCE,
            pagerduty_change.SOURCE,
        )
    }
)

"""Services with their owners, links, and hourly costs of an outage."""

"""The measures of one incident, the same for many incidents at once, and both in business hours."""

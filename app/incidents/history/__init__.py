"""The timeline of an incident and what people record in it."""

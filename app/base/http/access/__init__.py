"""Who sent a request, and whether the route allows it."""

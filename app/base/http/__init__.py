"""What all routes share: access, limits, requests, responses, the context of a request, and health checks."""

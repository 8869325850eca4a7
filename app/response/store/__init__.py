"""SQL for the response to incidents."""

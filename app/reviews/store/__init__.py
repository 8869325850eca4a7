"""SQL for reviews."""

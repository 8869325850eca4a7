"""What every process has: logs, background jobs, threads, memory, the spool."""

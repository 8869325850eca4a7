"""The numbers of a period: in total, by group, and in buckets."""

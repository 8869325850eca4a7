"""The numbers of a period: as a whole, by group, and in buckets."""

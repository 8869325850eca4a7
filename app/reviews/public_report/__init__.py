"""The report of a review for customers: an allow-list of facts, outlines, the check for leaks, comparisons. Pure."""

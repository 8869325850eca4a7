"""Grouping rules, their order, and trying them on past alerts."""

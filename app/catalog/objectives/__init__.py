"""Objectives with their error budgets, and availability."""

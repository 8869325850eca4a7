"""Texts of people: Markdown, secrets in them, and how they are written for customers."""

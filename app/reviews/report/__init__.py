"""The report of a review: the same facts in two outlines, as Markdown, HTML and data. Pure."""

"""Expressions for full-text search, which indexes and queries share. Migration 0024 has the function
`search_words`: the words of a text without ASCII punctuation, in lower case, of no particular language.
"""

# With the parentheses that PostgreSQL shows, because Alembic compares them.
WORDS_OF_REVIEW = "search_words((((((title || ' ') || summary) || ' ') || customer_impact) || ' ') || resolution)"
WORDS_OF_FINDING = "search_words((text || ' ') || coalesce(factor, ''))"
WORDS_OF_ACTION_ITEM = "search_words((title || ' ') || coalesce(done_when, ''))"
# Only of titles that people wrote. Others are made of alerts, during a storm many a second.
WORDS_OF_INCIDENT = "search_words(coalesce(title_stated, title))"
TITLE_IS_BY_A_PERSON = "(title_stated IS NOT NULL OR declared)"

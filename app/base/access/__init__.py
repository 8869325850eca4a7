"""Who may do what: access tokens, and sessions of people on the pages."""

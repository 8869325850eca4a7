"""The technique behind the pages: sessions, forms, templates, static files, and errors as pages."""

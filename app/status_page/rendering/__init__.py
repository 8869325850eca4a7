"""The public pages as HTML, JSON, Atom and RSS."""

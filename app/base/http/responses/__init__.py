"""How responses are written: errors, CSV, chosen fields, compression."""

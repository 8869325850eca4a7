"""What all areas share: values, texts, processes, access, tables, the database, HTTP, and outgoing requests."""

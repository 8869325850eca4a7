"""SQL of the status page, on the internal side: what people write, and what follows from incidents."""

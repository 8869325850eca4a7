"""Geometry of the plots: positions and paths that the templates draw."""

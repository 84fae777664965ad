"""Drawn talking faces driven by synthesised speech: data for the demo model that needs no downloads and no people."""

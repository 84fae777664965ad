"""Drawn talking faces driven by synthesised speech: data for the demo model, without downloads or people."""

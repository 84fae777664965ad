"""LetsTalk: one portrait and any length of speech to a talking video. Pure torch; never imports ComfyUI."""

__version__ = "0.2.0"

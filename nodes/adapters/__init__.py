"""The only place that knows ComfyUI's internals."""

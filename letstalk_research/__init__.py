"""How LetsTalk's models are made and measured. Uses `letstalk_core`; nothing that runs in ComfyUI imports it."""

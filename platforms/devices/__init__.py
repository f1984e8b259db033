"""Hardware models in plain Python: none of them knows which engine runs the processor."""

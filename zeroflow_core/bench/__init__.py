"""Measurements of what the package claims, as commands: ``python -m zeroflow_core.bench``."""

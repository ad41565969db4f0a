"""Which engine does the work: processes of this machine, or a Ray cluster."""

from .choice import LOCAL, EngineChoice, open_engine

__all__ = ["LOCAL", "EngineChoice", "open_engine"]

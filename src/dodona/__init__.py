"""dodona: learning methods from Bellman's equation to GRPO, each with its oracle."""

__version__ = "0.1.0"

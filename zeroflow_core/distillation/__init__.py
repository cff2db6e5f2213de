"""How a student learns: losses, and recipes that produce the checkpoints we ship."""

"""The trained model: passes, optimizer step, value model, reward head, checkpoints."""

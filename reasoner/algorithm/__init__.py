"""The mathematics: batches, advantages, losses, KL and importance weights."""

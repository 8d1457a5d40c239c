"""Mathematics of training: batches, advantages, losses, KL and importance weights."""

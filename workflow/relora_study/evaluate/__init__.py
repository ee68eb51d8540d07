"""Evaluate checkpoints: perplexity of texts, accuracy on minimal pairs, and the held-out loss."""

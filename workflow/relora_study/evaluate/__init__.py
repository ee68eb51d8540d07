"""Evaluate checkpoints: perplexity of texts, accuracy on minimal pairs, and the loss on the fixed batch."""

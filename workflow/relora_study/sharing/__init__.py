"""Results for others: an archive of a study, and checkpoints for the Hugging Face Hub."""

"""The model: a decoder of transformers with fast kernels, the layer of ReLoRA, and checkpoints for later stages."""

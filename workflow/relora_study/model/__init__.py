"""The model: transformers' Llama with fast kernels, the layer of ReLoRA, and the checkpoints that later stages read."""

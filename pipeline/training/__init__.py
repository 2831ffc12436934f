"""Diffusion-DPO training: loss, noise, the loop that survives a kill, and the experts it makes."""

"""The trainer, one idea a file; ``bcos_diffusion.train`` is its door."""

"""The commands of ``bcos-diffusion features``."""

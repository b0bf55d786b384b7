"""The commands of ``bcos-diffusion features``, a file each; heavy imports happen inside them."""

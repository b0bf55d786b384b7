"""What a layer of a diffusion model represents at a timestep: features, probes and maps of them."""

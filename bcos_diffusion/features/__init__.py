"""What a layer at a timestep represents."""

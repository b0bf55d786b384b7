"""Networks that denoise: the scenes U-Net and the paper's, and what samplers know of both."""

"""One thread pool for all tests: two pools on two cores stall one another."""

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))

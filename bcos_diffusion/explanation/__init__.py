"""What made a picture: traces, relevance by token, layer, step and region, and their figures."""

"""Reading sparse features: their top images, how pure they are, of what, and exactly what drives and what draws them."""

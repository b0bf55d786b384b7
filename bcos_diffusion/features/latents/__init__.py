"""Reading sparse features: their top images, what they tell, and exactly what drives them and what they draw."""

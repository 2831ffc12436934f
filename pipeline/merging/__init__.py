"""Many experts into one LoRA: what is measured first, how they are prepared, the methods."""

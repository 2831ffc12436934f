"""What a LoRA must leave alone: the inputs of benign prompts, and the projection off them."""

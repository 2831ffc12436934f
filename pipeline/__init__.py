"""Safety alignment for text-to-image diffusion: AlignGuard and Personalized Safety Alignment."""

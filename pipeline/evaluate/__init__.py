"""From stored raw scores to numbers that can be trusted; no image is looked at here."""

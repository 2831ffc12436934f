"""The testbed: a small invented world with ground truth, and the tiny real models that know it."""

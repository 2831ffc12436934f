"""Every judge over every image, once: raw scores of pairs, benchmarks and users."""

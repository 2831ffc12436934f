"""Personal safety boundaries (PSA, arXiv 2508.01151): users, pairs, adapter, and what it does."""

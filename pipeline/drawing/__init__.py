"""Drawing: pipelines and samplers, image shards that survive a kill, the variants to compare."""

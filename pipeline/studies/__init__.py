"""What the default run does not do: dials, single experts, curves over data and experts."""

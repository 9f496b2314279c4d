"""The company contract: health, shutdown, metrics."""

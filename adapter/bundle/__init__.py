"""The bundle: what ships as one versioned thing."""

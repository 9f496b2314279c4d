"""The `tandem` command, the embedded group, images and the cluster for development."""

# The sample `digits` on CPUs. The bundle's address and checksum are those that `tandem pack` and your store give.
name            = "digits"
bundle_url      = "https://bundles.example.com/digits-1.0.0.tar.zst"
bundle_checksum = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
model_version   = 1
device          = "cpu"
count           = 2

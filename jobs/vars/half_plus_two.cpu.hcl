# The sample `half_plus_two` on CPUs. The bundle's address and checksum are those that `tandem pack` and your store give.
name            = "half-plus-two"
bundle_url      = "https://bundles.example.com/half_plus_two-1.0.0.tar.zst"
bundle_checksum = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
model_version   = 1
device          = "cpu"
count           = 2

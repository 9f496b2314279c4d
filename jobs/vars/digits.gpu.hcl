# The sample `digits` on GPUs. The bundle's address and checksum are those that `tandem pack` and your store give.
name            = "digits-gpu"
bundle_url      = "https://bundles.example.com/digits-1.0.0.tar.zst"
bundle_checksum = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
model_version   = 1
device          = "gpu"
node_pool       = "gpu"
count           = 1
canary          = 0 # no spare GPU is kept for one
tfs_memory      = 4096
batch_size      = 128

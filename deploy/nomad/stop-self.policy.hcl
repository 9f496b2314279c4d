# What the adapter needs of Nomad so that POST /shutdown can end its instance: to stop an allocation.
#
#   nomad acl policy apply -namespace default -job NAME tandem-NAME-stop-self deploy/nomad/stop-self.policy.hcl
#
# -job binds it to the job's workload identity, so no token is handed out. Nomad has no rule for "this allocation alone":
# it covers the namespace, which is why a service that is not to have it goes without, and fails its allocation instead.
namespace "default" {
  capabilities = ["alloc-lifecycle"]
}

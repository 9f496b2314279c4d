# One model, one service: a stock TensorFlow Serving task and the adapter task that makes it a microservice.
#
#   nomad job run -var-file=jobs/vars/half_plus_two.cpu.hcl jobs/serving.nomad.hcl
#
# How the two tasks are one:
#   start    `tfs` is a prestart sidecar and fetches the bundle for both; the adapter is ready only once TensorFlow
#            Serving has the bundle's version AVAILABLE (Nomad itself waits no longer than for "running").
#   failure  restart mode "fail": a task that has used up its restarts fails the allocation, which takes its sibling
#            down in the order below and is placed anew. A failed liveness check restarts the allocation, both tasks.
#   stop     out of Consul → shutdown_delay → SIGTERM to the adapter (leader), which finishes what is in flight →
#            SIGTERM to `tfs`, which has no handler for it and needs none by then.
#   restart  of the group: Nomad stops both tasks at the same time, so `tfs` runs under a few lines of shell that hold its
#            SIGTERM back until the adapter has finished.
#   end      POST /shutdown stops the allocation through Nomad's task API (deploy/nomad/ has the ACL policy); where that
#            is not allowed, the adapter fails until its restarts are used up.
#   socket   connect(2) asks for write permission on a unix socket, and TensorFlow Serving creates its own 0755: both
#            tasks run as the same unprivileged user, and nobody else can call past the adapter.

variable "name" {
  type        = string
  description = "Name of the job and of its Consul service: a DNS label, as in NAME.service.consul."
  validation {
    condition     = var.name != "" && regex_replace(var.name, "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "") == ""
    error_message = "The name must be a DNS label: up to 63 lower-case letters, digits and inner hyphens."
  }
}

variable "bundle_url" {
  type        = string
  description = "Where the bundle (.tar.zst made by `tandem pack`) is fetched from: https://, http://, s3:: or gcs::."
  validation {
    condition     = var.bundle_url != "" && regex_replace(var.bundle_url, "^(https?://|s3::https://|gcs::https://)[^[:space:]]+$", "") == ""
    error_message = "The bundle_url must start with https://, http://, s3::https:// or gcs::https://."
  }
}

variable "bundle_checksum" {
  type        = string
  description = "The bundle's checksum, as `tandem pack` prints it; an artifact with another one is refused."
  validation {
    condition     = var.bundle_checksum != "" && regex_replace(var.bundle_checksum, "^sha256:[0-9a-f]{64}$", "") == ""
    error_message = "The bundle_checksum must be sha256: and 64 lower-case hexadecimal digits."
  }
}

variable "model_version" {
  type        = number
  description = "The model version that this release serves; the adapter refuses a bundle that holds another."
  validation {
    condition     = var.model_version >= 0 && floor(var.model_version) == var.model_version
    error_message = "The model_version must be a whole number, 0 or more: it names TensorFlow Serving's version directory."
  }
}

variable "device" {
  type        = string
  default     = "cpu"
  description = "cpu or gpu: the image, the NVIDIA device and TensorFlow Serving's batching follow from it."
  validation {
    condition     = contains(["cpu", "gpu"], var.device)
    error_message = "The device must be cpu or gpu."
  }
}

variable "network_mode" {
  type        = string
  default     = "bridge"
  description = <<-EOT
    bridge: the group has its own network namespace, with one port mapped. host: for clusters without bridge networks;
    TensorFlow Serving then opens no port at all (its REST server would listen on every address of the host and bypass
    the adapter's access rules), so its own metrics are missing from /metrics.
  EOT
  validation {
    condition     = contains(["bridge", "host"], var.network_mode)
    error_message = "The network_mode must be bridge or host."
  }
}

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Datacenters to run in; patterns are allowed."
  validation {
    condition     = length(var.datacenters) > 0
    error_message = "The datacenters must name at least one datacenter or pattern."
  }
}

variable "node_pool" {
  type        = string
  default     = "default"
  description = "Node pool to run in; GPU groups usually have their own."
  validation {
    condition     = var.node_pool != "" && regex_replace(var.node_pool, "^[a-zA-Z0-9_-]{1,128}$", "") == ""
    error_message = "The node_pool must be 1 to 128 letters, digits, hyphens and underscores."
  }
}

variable "count" {
  type        = number
  default     = 1
  description = "Instances, between min_count and max_count. `nomad job run -preserve-counts` keeps what the autoscaler chose."
  validation {
    condition     = var.count >= 0 && floor(var.count) == var.count
    error_message = "The count must be a whole number, 0 or more."
  }
}

variable "min_count" {
  type        = number
  default     = 1
  description = "Fewest instances that an autoscaler may choose."
  validation {
    condition     = var.min_count >= 0 && floor(var.min_count) == var.min_count
    error_message = "The min_count must be a whole number, 0 or more."
  }
}

variable "max_count" {
  type        = number
  default     = 10
  description = "Most instances that an autoscaler may choose."
  validation {
    condition     = var.max_count >= 1 && floor(var.max_count) == var.max_count
    error_message = "The max_count must be a whole number, 1 or more."
  }
}

variable "canary" {
  type        = number
  default     = 1
  description = <<-EOT
    New instances that must be healthy beside the old ones before a release is promoted. A canary needs room, on a GPU
    node a free GPU: where there is none, 0 replaces one instance after the other.
  EOT
  validation {
    condition     = var.canary >= 0 && floor(var.canary) == var.canary
    error_message = "The canary must be a whole number, 0 or more."
  }
}

variable "min_healthy_time" {
  type        = number
  default     = 10
  description = "Seconds that an instance must stay healthy before a release goes on."
  validation {
    condition     = var.min_healthy_time >= 0
    error_message = "The min_healthy_time must be 0 seconds or more."
  }
}

variable "healthy_deadline" {
  type        = number
  default     = 300
  description = "Seconds within which an instance must be healthy, fetching the bundle and loading the model included."
  validation {
    condition     = var.healthy_deadline >= 10
    error_message = "The healthy_deadline must be 10 seconds or more."
  }
}

variable "shutdown_delay" {
  type        = number
  default     = 5
  description = "Seconds between leaving Consul and SIGTERM: as long as callers and load balancers may hold an old answer."
  validation {
    condition     = var.shutdown_delay >= 0 && var.shutdown_delay <= 60
    error_message = "The shutdown_delay must be between 0 and 60 seconds."
  }
}

variable "shutdown_grace" {
  type        = number
  default     = 20
  description = "Seconds that requests in flight have to finish; with 8 more it must fit the client's max_kill_timeout (30 s)."
  validation {
    condition     = var.shutdown_grace >= 1 && var.shutdown_grace <= 22
    error_message = "The shutdown_grace must be between 1 and 22 seconds: Nomad's clients kill after 30 seconds by default."
  }
}

variable "tfs_image" {
  type        = string
  default     = ""
  description = "TensorFlow Serving's image; empty: the stock image of the device."
  validation {
    condition     = regex_replace(var.tfs_image, "^[^[:space:]]*$", "") == ""
    error_message = "The tfs_image must be an image reference without spaces."
  }
}

variable "adapter_image" {
  type        = string
  default     = "tandem/adapter:0.1.0"
  description = "The adapter's image."
  validation {
    condition     = var.adapter_image != "" && regex_replace(var.adapter_image, "^[^[:space:]]+$", "") == ""
    error_message = "The adapter_image must be an image reference without spaces."
  }
}

variable "user" {
  type        = string
  default     = "10001:10001"
  description = "UID:GID of both tasks. They must share it: see the head of this file."
  validation {
    condition     = var.user != "" && regex_replace(var.user, "^[1-9][0-9]*:[1-9][0-9]*$", "") == ""
    error_message = "The user must be a numeric UID:GID, neither of them 0: names would differ between the two images."
  }
}

variable "tfs_cpu" {
  type        = number
  default     = 1000
  description = "MHz reserved for TensorFlow Serving."
  validation {
    condition     = var.tfs_cpu >= 100
    error_message = "The tfs_cpu must be 100 MHz or more."
  }
}

variable "tfs_memory" {
  type        = number
  default     = 1024
  description = "MiB for TensorFlow Serving: the model, its working memory, and the largest batch."
  validation {
    condition     = var.tfs_memory >= 256
    error_message = "The tfs_memory must be 256 MiB or more."
  }
}

variable "tfs_threads" {
  type        = number
  default     = 64
  description = <<-EOT
    Calls that TensorFlow Serving takes at one time (--grpc_max_threads); it refuses those above it. The adapter keeps
    within it, so both tasks get this number.
  EOT
  validation {
    condition     = var.tfs_threads >= 2 && var.tfs_threads <= 1024 && floor(var.tfs_threads) == var.tfs_threads
    error_message = "The tfs_threads must be a whole number between 2 and 1024."
  }
}

variable "tfs_log_size" {
  type        = number
  default     = 20
  description = <<-EOT
    MiB of each of TensorFlow Serving's log files; five are kept of each stream. They are what waits while the adapter is
    away: it says their lines again in its own log.
  EOT
  validation {
    condition     = var.tfs_log_size >= 1 && var.tfs_log_size <= 20 && floor(var.tfs_log_size) == var.tfs_log_size
    error_message = "The tfs_log_size must be a whole number of MiB between 1 and 20."
  }
}

variable "adapter_cpu" {
  type        = number
  default     = 500
  description = "MHz reserved for the adapter."
  validation {
    condition     = var.adapter_cpu >= 100
    error_message = "The adapter_cpu must be 100 MHz or more."
  }
}

variable "adapter_memory" {
  type        = number
  default     = 512
  description = "MiB for the adapter. A quarter of it may be request bodies; beyond that, requests are answered 503."
  validation {
    condition     = var.adapter_memory >= 128
    error_message = "The adapter_memory must be 128 MiB or more."
  }
}

variable "disk" {
  type        = number
  default     = 1024
  description = "MiB of disk for the allocation: the unpacked bundle, and 200 for the logs of both tasks."
  validation {
    condition     = var.disk >= 256
    error_message = "The disk must be 256 MiB or more."
  }
}

variable "gpu_count" {
  type        = number
  default     = 1
  description = "GPUs per instance (device = gpu)."
  validation {
    condition     = var.gpu_count >= 1 && floor(var.gpu_count) == var.gpu_count
    error_message = "The gpu_count must be a whole number, 1 or more."
  }
}

variable "batch_size" {
  type        = number
  default     = 64
  description = "Most rows that TensorFlow Serving runs as one batch (device = gpu)."
  validation {
    condition     = var.batch_size >= 1 && floor(var.batch_size) == var.batch_size
    error_message = "The batch_size must be a whole number, 1 or more."
  }
}

variable "batch_timeout" {
  type        = number
  default     = 2000
  description = "Microseconds that a batch waits to fill up (device = gpu)."
  validation {
    condition     = var.batch_timeout >= 0 && floor(var.batch_timeout) == var.batch_timeout
    error_message = "The batch_timeout must be a whole number of microseconds, 0 or more."
  }
}

variable "tags" {
  type        = list(string)
  default     = []
  description = "Tags of the Consul service, such as a load balancer's rules. A canary has the tag `canary` in their place."
  validation {
    condition     = !contains(var.tags, "canary")
    error_message = "The tags must not hold canary: it tells a canary from a promoted instance."
  }
}

variable "log_level" {
  type        = string
  default     = "INFO"
  description = "Least severity that the adapter writes."
  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "The log_level must be DEBUG, INFO, WARNING or ERROR."
  }
}

variable "production" {
  type        = bool
  default     = false
  description = "Refuse to start unless tokens are asked for (jwt_jwks, or jwks or jwt_secret among the secret_files) with a jwt_audience."
  validation {
    condition     = contains([true, false], var.production)
    error_message = "The production must be true or false."
  }
}

variable "allow" {
  type        = list(string)
  default     = []
  description = "Addresses (CIDRs) that get in; empty: every one. With allow among the secret_files the list comes from there."
  validation {
    condition     = join("", [for cidr in var.allow : regex_replace(cidr, "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "")]) == ""
    error_message = "The allow must hold addresses and CIDRs such as 10.0.0.0/8 or 2001:db8::/32."
  }
}

variable "allow_health" {
  type        = list(string)
  default     = []
  description = <<-EOT
    Addresses that get in on /health alone, where there is an allow-list: the checker's. Empty: the bridge gateway's
    (172.26.64.1, unless the clients configure another), under host networking the node's own.
  EOT
  validation {
    condition     = join("", [for cidr in var.allow_health : regex_replace(cidr, "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "")]) == ""
    error_message = "The allow_health must hold addresses and CIDRs such as 172.26.64.1."
  }
}

variable "trusted_proxies" {
  type        = list(string)
  default     = []
  description = "Proxies (CIDRs) whose Forwarded or X-Forwarded-For names the client that the allow-list is about."
  validation {
    condition     = join("", [for cidr in var.trusted_proxies : regex_replace(cidr, "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "")]) == ""
    error_message = "The trusted_proxies must hold addresses and CIDRs such as 10.9.0.0/16."
  }
}

variable "jwt_jwks" {
  type        = string
  default     = ""
  description = "URL of the JWK set that tokens are checked with; empty: none."
  validation {
    condition     = regex_replace(var.jwt_jwks, "^(https?://[^[:space:]]+)?$", "") == ""
    error_message = "The jwt_jwks must be an http:// or https:// URL."
  }
}

variable "jwt_issuer" {
  type        = string
  default     = ""
  description = "The iss that tokens must have; empty: not looked at."
  validation {
    condition     = regex_replace(var.jwt_issuer, "^[^[:space:]]*$", "") == ""
    error_message = "The jwt_issuer must be without spaces."
  }
}

variable "jwt_audience" {
  type        = string
  default     = ""
  description = "The aud that tokens must have; empty: not looked at."
  validation {
    condition     = regex_replace(var.jwt_audience, "^[^[:space:]]*$", "") == ""
    error_message = "The jwt_audience must be without spaces."
  }
}

variable "policy" {
  type        = map(string)
  default     = {}
  description = "Changes to what resources ask for, such as { \"/docs\" = \"open\" }; docs/security.md has the table."
  validation {
    condition     = length([for demand in values(var.policy) : demand if !contains(["open", "any", "closed", "predict", "admin", "metrics", "docs"], demand)]) == 0
    error_message = "The policy must ask for open, any, closed, predict, admin, metrics or docs."
  }
}

variable "secret_files" {
  type        = list(string)
  default     = []
  description = <<-EOT
    What is rendered into the adapter's secrets directory and read again when it changes, without a restart: any of
    jwt_secret, jwks, allow, tenants, tls (certificate chain and key) and tls_client_ca, each from the item of that name.
    While a secret is replaced, the old one may stay in force as jwt_secret_previous.
  EOT
  validation {
    condition     = length([for name in var.secret_files : name if !contains(["jwt_secret", "jwks", "allow", "tenants", "tls", "tls_client_ca"], name)]) == 0
    error_message = "The secret_files must be of jwt_secret, jwks, allow, tenants, tls and tls_client_ca."
  }
}

variable "secret_source" {
  type        = string
  default     = "nomad"
  description = "Where the secret_files come from: nomad (a Nomad Variable) or vault (a KV version 2 secret)."
  validation {
    condition     = contains(["nomad", "vault"], var.secret_source)
    error_message = "The secret_source must be nomad or vault."
  }
}

variable "secret_path" {
  type        = string
  default     = ""
  description = "Path of the Nomad Variable or the Vault secret; empty: nomad/jobs/NAME (which the job may read by itself), secret/data/NAME."
  validation {
    condition     = regex_replace(var.secret_path, "^[a-zA-Z0-9/_.~-]*$", "") == ""
    error_message = "The secret_path must be a path of letters, digits and /_.~- alone."
  }
}

variable "vault_role" {
  type        = string
  default     = ""
  description = "Vault role of the task's identity (secret_source = vault); empty: the cluster's default."
  validation {
    condition     = regex_replace(var.vault_role, "^[a-zA-Z0-9_.-]*$", "") == ""
    error_message = "The vault_role must be letters, digits and _.- alone."
  }
}

variable "released_by" {
  type        = string
  default     = ""
  description = "Who makes this release, as /changes tells it."
  validation {
    condition     = regex_replace(var.released_by, "^.{0,128}$", "") == ""
    error_message = "The released_by must be one line of at most 128 characters."
  }
}

variable "consul_addr" {
  type        = string
  default     = ""
  description = <<-EOT
    Consul's HTTP API for the release history (/changes), as a task reaches it: host:port or a URL, or `node` for port 8500
    of the node's own address. In bridge mode an agent that listens on 127.0.0.1 alone cannot be reached: give it the node's
    address or the bridge's gateway as a further `client_addr`. Empty: each instance tells its own release alone.
  EOT
  validation {
    condition     = regex_replace(var.consul_addr, "^(node|(https?://)?[^[:space:]/@]+:[0-9]+)$", "") == ""
    error_message = "The consul_addr must be host:port, http(s)://host:port, node, or empty."
  }
}

variable "audit" {
  type        = bool
  default     = false
  description = "Keep audit records, in the log stream and in alloc/data/audit (docs/compliance.md); 128 MiB of disk at most."
  validation {
    condition     = contains([true, false], var.audit)
    error_message = "The audit must be true or false."
  }
}

variable "connect" {
  type        = string
  default     = ""
  description = <<-EOT
    Consul Connect (bridge mode): sidecar = callers name this service as an upstream of their proxy; transparent = callers
    use its virtual address (needs the consul-cni plugin on the clients). Empty: plain.
  EOT
  validation {
    condition     = contains(["", "sidecar", "transparent"], var.connect)
    error_message = "The connect must be sidecar, transparent or empty."
  }
}

variable "env" {
  type        = map(string)
  default     = {}
  description = "Further environment of the adapter (OTEL_*, ADAPTER_*). No secrets: they would be readable in the job."
  validation {
    condition     = join("", [for key in keys(var.env) : regex_replace(key, "^[A-Z_][A-Z0-9_]*$", "")]) == ""
    error_message = "The env must have names of upper-case letters, digits and underscores."
  }
}

locals {
  bridge = var.network_mode == "bridge"
  gpu    = var.device == "gpu"

  stock_image = local.gpu ? "tensorflow/serving:2.19.1-gpu" : "tensorflow/serving:2.19.1"
  tfs_image   = var.tfs_image != "" ? var.tfs_image : local.stock_image

  # Who gets in. In bridge mode the checker, like everything on the same host, comes from the bridge gateway's address.
  allow        = contains(var.secret_files, "allow") ? "@${NOMAD_SECRETS_DIR}/allow" : join(",", var.allow)
  checker      = local.bridge ? "172.26.64.1" : "127.0.0.0/8,::1,${attr.unique.network.ip-address}"
  allow_health = length(var.allow_health) > 0 ? join(",", var.allow_health) : local.checker
  jwks         = contains(var.secret_files, "jwks") ? "${NOMAD_SECRETS_DIR}/jwks" : var.jwt_jwks
  tls          = contains(var.secret_files, "tls")
  access = {
    ADAPTER_ALLOW           = local.allow
    ADAPTER_ALLOW_HEALTH    = local.allow != "" ? local.allow_health : ""
    ADAPTER_TRUSTED_PROXIES = join(",", var.trusted_proxies)
    ADAPTER_JWT_JWKS        = local.jwks
    ADAPTER_JWT_SECRET_FILE = contains(var.secret_files, "jwt_secret") ? "${NOMAD_SECRETS_DIR}/jwt_secret" : ""
    ADAPTER_JWT_ISSUER      = var.jwt_issuer
    ADAPTER_JWT_AUDIENCE    = var.jwt_audience
    ADAPTER_POLICY          = join(",", [for resource, demand in var.policy : "${resource}=${demand}"])
    ADAPTER_PRODUCTION      = var.production
    ADAPTER_TENANTS         = contains(var.secret_files, "tenants") ? "${NOMAD_SECRETS_DIR}/tenants" : ""
    ADAPTER_TLS_CERTIFICATE = local.tls ? "${NOMAD_SECRETS_DIR}/tls" : ""
    ADAPTER_TLS_CLIENT_CA   = contains(var.secret_files, "tls_client_ca") ? "${NOMAD_SECRETS_DIR}/tls_client_ca" : ""
  }

  vault       = var.secret_source == "vault"
  secret_path = var.secret_path != "" ? var.secret_path : local.vault ? "secret/data/${var.name}" : "nomad/jobs/${var.name}"
  secret_with = local.vault ? "with (secret \"${local.secret_path}\").Data.data" : "with nomadVar \"${local.secret_path}\""

  rest_port = 8501 # the adapter reads TensorFlow Serving's monitoring page there; it is never mapped to the host
  tfs_args = concat(
    [
      "--port=0",
      "--grpc_socket_path=${NOMAD_ALLOC_DIR}/tmp/tfs.sock",
      "--grpc_max_threads=${var.tfs_threads}",
      "--model_config_file=${NOMAD_ALLOC_DIR}/bundle/tfs/models.config",
      "--allow_version_labels_for_unavailable_models=true", # else a bundle's labels stop the first start
      "--file_system_poll_wait_seconds=0",                  # a bundle never changes under a running allocation
      "--max_num_load_retries=2",                           # the defaults try a broken model for five minutes
      "--load_retry_interval_micros=5000000",
    ],
    local.bridge ? [
      "--rest_api_port=${local.rest_port}",
      "--monitoring_config_file=${NOMAD_TASK_DIR}/monitoring.config",
    ] : [],
    local.gpu ? [
      "--enable_batching=true",
      "--batching_parameters_file=${NOMAD_TASK_DIR}/batching.config",
    ] : [],
  )
}

job "serving" {
  id          = var.name
  name        = var.name
  type        = "service"
  datacenters = var.datacenters
  node_pool   = var.node_pool

  constraint { # TensorFlow Serving's images are for this one only
    attribute = "${attr.cpu.arch}"
    value     = "amd64"
  }

  group "serving" {
    count          = var.count
    shutdown_delay = "${var.shutdown_delay}s"

    # The adapter finds these as NOMAD_META_*: what it reports as running.
    meta = {
      bundle_url      = var.bundle_url
      bundle_checksum = var.bundle_checksum
      model_version   = var.model_version
      device          = var.device
      tfs_image       = local.tfs_image
      adapter_image   = var.adapter_image
      released_by     = var.released_by
    }

    network {
      mode = var.network_mode
      port "http" {
        to = local.bridge ? 8080 : 0
      }
    }

    service {
      name        = var.name
      provider    = "consul"
      port        = "http"
      tags        = var.tags
      canary_tags = ["canary"]

      dynamic "connect" {
        for_each = var.connect != "" ? [var.connect] : []
        content {
          sidecar_service {
            dynamic "proxy" {
              for_each = connect.value == "transparent" ? ["transparent"] : []
              content {
                transparent_proxy {}
              }
            }
          }
        }
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        protocol = local.tls ? "https" : "http"

        tls_skip_verify = local.tls # the checker asks an address, which no certificate names
        interval        = "1s"      # how long Consul may go on naming an instance that is unready
        timeout         = "1s"
      }

      check {
        name     = "live"
        type     = "http"
        path     = "/health/live"
        protocol = local.tls ? "https" : "http"

        tls_skip_verify = local.tls # the checker asks an address, which no certificate names
        interval        = "5s"
        timeout         = "3s"
        check_restart { # of a group's service: restarts both tasks
          limit = 3
          grace = "30s"
        }
      }
    }

    update {
      health_check      = "checks"
      max_parallel      = 1
      canary            = var.canary
      auto_promote      = var.canary > 0
      auto_revert       = true
      min_healthy_time  = "${var.min_healthy_time}s"
      healthy_deadline  = "${var.healthy_deadline}s"
      progress_deadline = "${var.healthy_deadline + 60}s"
    }

    migrate {
      health_check     = "checks"
      max_parallel     = 1
      min_healthy_time = "${var.min_healthy_time}s"
      healthy_deadline = "${var.healthy_deadline}s"
    }

    restart {
      attempts = 3
      interval = "5m"
      delay    = "1s"
      mode     = "fail"
    }

    reschedule {
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "5m"
      unlimited      = true
    }

    disconnect { # a node that comes back keeps its loaded model
      lost_after = "1h"
      replace    = true
      reconcile  = "longest_running"
    }

    spread {
      attribute = "${node.unique.id}"
    }

    scaling {
      enabled = true
      min     = var.min_count
      max     = var.max_count
    }

    ephemeral_disk {
      size = var.disk
    }

    task "tfs" {
      driver         = "docker"
      user           = var.user
      kill_signal    = "SIGTERM"
      kill_timeout   = "${var.shutdown_grace + 8}s" # used in a restart of the group alone, see tfs.sh
      shutdown_delay = "0s"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      artifact {
        source      = var.bundle_url
        destination = "${NOMAD_ALLOC_DIR}/bundle"
        options {
          archive  = "tar.zst"
          checksum = var.bundle_checksum
        }
      }

      config {
        image = local.tfs_image
        # In the place of the stock image's shell script, which adds ports of its own.
        entrypoint      = ["/bin/bash", "${NOMAD_TASK_DIR}/tfs.sh"]
        args            = local.tfs_args
        network_mode    = local.bridge ? "" : "host"
        init            = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        readonly_rootfs = true
        mount {
          type   = "tmpfs"
          target = "/tmp"
        }
      }

      # TensorFlow Serving ends at once on SIGTERM, requests or not. The adapter holds the lock for as long as it needs it;
      # after a stop of the allocation it is free already. Nobody else sees why it died: docker does not tell of the
      # kernel's out-of-memory killer under cgroup v2.
      template {
        destination = "local/tfs.sh"
        change_mode = "noop"
        data        = <<-EOT
          /usr/bin/tensorflow_model_server "$@" &
          server=$!
          stop() {
            stopped=1
            flock --shared "$NOMAD_ALLOC_DIR/data/adapter.lock" true
            kill -KILL "$server"
          }
          trap stop TERM
          while wait "$server" 2>/dev/null; status=$?; kill -0 "$server" 2>/dev/null; do :; done
          [ -z "$stopped" ] || exit 0
          if [ "$status" -gt 128 ]; then
            echo "Killed by SIG$(kill -l "$status"): tensorflow_model_server$(
              grep -qs '^oom_kill [1-9]' /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control &&
                echo ', out of memory'
            )" >&2
          fi
          exit "$status"
        EOT
      }

      env = local.gpu ? { TF_FORCE_GPU_ALLOW_GROWTH = "true" } : {}

      dynamic "template" {
        for_each = local.bridge ? ["monitoring.config"] : []
        content {
          destination = "local/${template.value}"
          change_mode = "noop"
          data        = <<-EOT
            prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
          EOT
        }
      }

      dynamic "template" {
        for_each = local.gpu ? ["batching.config"] : []
        content {
          destination = "local/${template.value}"
          change_mode = "noop"
          data        = <<-EOT
            max_batch_size { value: ${var.batch_size} }
            batch_timeout_micros { value: ${var.batch_timeout} }
          EOT
        }
      }

      resources {
        cpu    = var.tfs_cpu
        memory = var.tfs_memory

        dynamic "device" {
          for_each = local.gpu ? ["nvidia/gpu"] : []
          labels   = [device.value]
          content {
            count = var.gpu_count
          }
        }
      }

      logs {
        max_files     = 5
        max_file_size = var.tfs_log_size
      }
    }

    task "adapter" {
      driver       = "docker"
      user         = var.user
      leader       = true
      kill_signal  = "SIGTERM"
      kill_timeout = "${var.shutdown_grace + 8}s" # the delay of 2 s before it, and what may be left of the telemetry after it

      identity { # the task API's socket, secrets/api.sock, and a token for it
        env  = true
        file = true
      }

      config {
        image           = var.adapter_image
        network_mode    = local.bridge ? "" : "host"
        init            = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        readonly_rootfs = true
        mount {
          type   = "tmpfs"
          target = "/tmp"
        }
      }

      dynamic "vault" {
        for_each = local.vault ? [var.vault_role] : []
        content {
          role         = vault.value
          change_mode  = "noop"
          env          = false # the templates' token is none of the adapter's business
          disable_file = true
        }
      }

      # Never `restart`, the default: it would end the task undrained. The adapter sees the files change.
      dynamic "template" {
        for_each = distinct(var.secret_files)
        content {
          destination = "${NOMAD_SECRETS_DIR}/${template.value}"
          change_mode = "noop"
          perms       = "0400"
          uid         = parseint(split(":", var.user)[0], 10)
          gid         = parseint(split(":", var.user)[1], 10)
          data        = <<-EOT
            {{ ${local.secret_with} }}{{ .${template.value} }}${template.value == "jwt_secret" ? "\n{{ with .jwt_secret_previous }}{{ . }}{{ end }}" : ""}{{ end }}
          EOT
        }
      }

      # ADAPTER_PORT, ADAPTER_TFS_GRPC and ADAPTER_TFS_LOGS follow from Nomad's own variables.
      env = merge(local.access, {
        ADAPTER_HOST            = local.bridge ? "0.0.0.0" : "${NOMAD_IP_http}"
        ADAPTER_BUNDLE          = "${NOMAD_ALLOC_DIR}/bundle"
        ADAPTER_MODEL_VERSION   = var.model_version
        ADAPTER_TFS_MAX_CALLS   = var.tfs_threads
        ADAPTER_TFS_METRICS_URL = local.bridge ? "http://127.0.0.1:${local.rest_port}/monitoring/prometheus/metrics" : ""
        ADAPTER_MAX_BODY_TOTAL  = floor(var.adapter_memory * 1048576 / 4)
        ADAPTER_SHUTDOWN_DELAY  = 2 # for a stop that Nomad did not ask for: two intervals of the readiness check
        ADAPTER_SHUTDOWN_GRACE  = var.shutdown_grace
        ADAPTER_LOG_LEVEL       = var.log_level
        ADAPTER_NODE            = "${node.unique.name}"
        ADAPTER_CONSUL_ADDR     = var.consul_addr == "node" ? "${attr.unique.network.ip-address}:8500" : var.consul_addr
        ADAPTER_AUDIT           = var.audit
      }, var.env)

      resources {
        cpu    = var.adapter_cpu
        memory = var.adapter_memory
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }
    }
  }
}

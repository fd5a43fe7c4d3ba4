# One Consul server for stores.yaml, reached on this machine's loopback interface alone. More servers, of which some may
# be lost, need bootstrap_expect, retry_join and TLS: https://developer.hashicorp.com/consul/docs
server           = true
bootstrap_expect = 1
node_name        = "towpath"
data_dir         = "/consul/data"
bind_addr        = "127.0.0.1"
client_addr      = "127.0.0.1"

ports {
  http     = 8500
  server   = 8300
  serf_lan = 8301
  serf_wan = -1
  dns      = -1
  grpc     = -1
  grpc_tls = -1
}

# Whoever has no token may do nothing. The first token comes from `consul acl bootstrap`, once.
acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true
}

connect {
  enabled = false
}

disable_update_check = true

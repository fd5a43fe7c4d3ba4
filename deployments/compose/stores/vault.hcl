# One Vault server for stores.yaml. Its API is on this machine's loopback interface alone, so it needs no certificate; one
# that others reach does: tls_cert_file and tls_key_file instead of tls_disable, and https:// in platform.yaml.
api_addr     = "http://127.0.0.1:8200"
cluster_addr = "https://127.0.0.1:8201"

# Vault keeps its memory out of swap with mlock, which maps the whole of this storage's file: turn swap off instead.
disable_mlock = true

storage "raft" {
  path    = "/vault/file"
  node_id = "towpath"
}

listener "tcp" {
  address         = "127.0.0.1:8200"
  cluster_address = "127.0.0.1:8201"
  tls_disable     = true
}

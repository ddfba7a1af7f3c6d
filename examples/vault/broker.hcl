# What the broker's own token may do, and nothing else. It reads static secrets in its own name; all that is made is made
# by job tokens, so no path of an engine that makes something stands here.

# Job tokens: made, looked at, ended.
path "auth/token/create/hallpass" { capabilities = ["update"] }
path "auth/token/roles/hallpass" { capabilities = ["read"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }

# Leases: prolonged to the policy's TTL, and ended. No revoke-prefix, no revoke-force: those need sudo.
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }

# Its own token: `default` allows these; they stand here for logins without it.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }

# The static secrets that grants name.
path "secret/data/ci/*" { capabilities = ["read"] }

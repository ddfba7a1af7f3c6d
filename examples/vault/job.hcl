# What job tokens may do: make what grants name. Whoever may have what is decided by Hallpass; this is the outer fence.
path "database/creds/payments-rw" { capabilities = ["read"] }
path "pki/sign/ci" { capabilities = ["update"] }
path "transit/sign/release" { capabilities = ["update"] }
